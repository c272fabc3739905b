from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reid_kit.errors import InputError
from reid_kit.model.backbone import Backbone

REAL = Path(__file__).parents[3] / "shared/weights/mobilenetv2_100_imagenet.safetensors"


def backbone(weights, name="test_resnet"):
    return Backbone(name, str(weights), 2, (), 64, 32)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return {key: value.contiguous() for key, value in backbone("none").network.state_dict().items()}


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "prefixed"])
def test_a_local_file_in_its_usual_forms(tmp_path, state, form):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file({**state, "fc.weight": torch.zeros(10, 4)}, path)
    else:
        content = {f"module.{key}": value for key, value in state.items()} if form == "prefixed" else state
        torch.save({"state_dict": content} if form == "wrapped" else content, path)
    loaded = backbone(path).network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_files_that_do_not_fit(tmp_path, state):
    missing = dict(list(state.items())[1:])
    torch.save(missing, tmp_path / "missing.pth")
    with pytest.raises(InputError, match=f"missing.pth does not fit.*1 missing, as {next(iter(state))}"):
        backbone(tmp_path / "missing.pth")
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match="1 not known to the backbone, as more"):
        backbone(tmp_path / "more.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(InputError, match="text.pth cannot be read as weights"):
        backbone(tmp_path / "text.pth")
    with pytest.raises(InputError, match="no such file. Give imagenet, none, or the path"):
        backbone(tmp_path / "none.pth")


def test_offline_says_what_to_do(monkeypatch):
    def offline(*arguments, **options):
        if options["pretrained"]:
            raise OSError("no network")
        raise AssertionError("asked for random weights")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        InputError, match="weights of resnet50 cannot be downloaded.*MODEL.WEIGHTS path.*MODEL.WEIGHTS none"
    ):
        backbone("imagenet", "resnet50")


@pytest.mark.skipif(not REAL.exists(), reason="the ImageNet weights are not here")
def test_the_real_mobilenet():
    network = Backbone("mobilenetv2_100", str(REAL), 1, (), 128, 64)
    assert network.channels == [1280]
