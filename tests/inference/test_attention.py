from pathlib import Path

import cv2
import numpy as np
import torch

from reid_kit.data.records import JUNK, Record
from reid_kit.inference.attention import activation_maps, attention_picture, four_people
from reid_kit.inference.testing import TestSettings
from reid_kit.model.embedder import Embedder


def test_the_map_of_a_part_is_the_norm_of_its_piece():
    torch.manual_seed(0)
    parts = [{"stripes": 2}, {"channels": 2}]
    model = Embedder("test_resnet", "none", height=64, width=32, last_stride=1, parts=parts).eval()
    images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    maps = model.backbone((images - model.mean) / model.std)[0].detach()
    found = activation_maps(model, images)
    assert list(found) == model.level_names
    for name, values in found.items():
        piece = maps.clone()
        if name == "stripes2.1":
            piece[:, :, 2:] = 0
        if name == "stripes2.2":
            piece[:, :, :2] = 0
        if name == "channels2.1":
            piece[:, 48:] = 0
        if name == "channels2.2":
            piece[:, :48] = 0
        expected = torch.stack([one.square().sum(0) / one.square().sum(0).max() for one in piece])
        torch.testing.assert_close(values, expected)


def test_a_picture_of_four_people(tmp_path):
    model = Embedder("test_resnet", "none", height=64, width=32, parts=[{"stripes": 2}])
    records = []
    for identity in (JUNK, 1, 1, 2, 3, 5, 8, 13):
        path = tmp_path / f"{identity}_{len(records)}.png"
        cv2.imwrite(str(path), np.random.default_rng(len(records)).integers(0, 256, (70, 30, 3), dtype=np.uint8))
        records.append(Record(path, identity, camera=2))
    people = four_people(records)
    assert [record.identity for record in people] == [1, 3, 5, 13] and people[0] == records[1]
    assert len(four_people(records[:4])) == 2
    model.train()
    png = attention_picture(model, people, TestSettings(64, 32, torch.device("cpu")))
    assert model.training  # left as it was
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] > 4 * 192 and picture.shape[1] > 4 * 96
    assert isinstance(people[0].path, Path) and picture.std() > 10
