import errno

import numpy as np
import pytest
import torch

from reid_kit import files, load_model
from reid_kit.errors import InputError
from reid_kit.model.checkpoint import FORMAT, load_checkpoint, load_state, save_checkpoint
from reid_kit.model.embedder import Embedder

ARGUMENTS = {
    "backbone": "test_resnet",
    "weights": "none",
    "neck": "bnneck",
    "embedding_size": 5,
    "pooling": "gem",
    "height": 64,
    "width": 32,
    "last_stride": 1,
}
IMAGES = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Embedder(**ARGUMENTS, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    model(IMAGES)  # batch statistics of its own
    return model.eval()


@pytest.fixture
def path(tmp_path, model):
    path = tmp_path / "best.pt"
    save_checkpoint(path, model, config="TRAIN: {}", dataset="demo", labels={7: 0, 9: 1}, metrics={"mAP": 0.5})
    return path


def test_the_model_is_built_from_the_file_alone(path, model):
    loaded = load_model(path, "cpu")
    assert not loaded.training
    for mine, theirs in zip(loaded(IMAGES), model(IMAGES)):
        assert torch.equal(mine, theirs)


def test_the_file_says_what_it_is(path):
    content = load_checkpoint(path)
    assert content["model_name"] == "test_resnet" and content["labels"] == {7: 0, 9: 1}
    assert content["dataset"] == "demo" and content["metrics"] == {"mAP": 0.5} and content["training"] is None


class Trap:
    def __reduce__(self):
        return (print, ("code of the file ran",))


def test_files_that_are_no_checkpoint(tmp_path, path, capsys):
    with pytest.raises(InputError, match="no checkpoint .*nowhere.pt"):
        load_checkpoint(tmp_path / "nowhere.pt")
    for size in (0, 10, 1000, path.stat().st_size // 2):
        (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError, match=f"cut.pt \\({size} bytes\\) cannot be read: it is truncated"):
            load_checkpoint(tmp_path / "cut.pt")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="not a reid_kit checkpoint.*MODEL.WEIGHTS"):
        load_checkpoint(tmp_path / "weights.pt")
    torch.save({"embedder": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(InputError, match="trap.pt .*asks for Python's print, and code in files is not run"):
        load_checkpoint(tmp_path / "trap.pt")
    assert "ran" not in capsys.readouterr().out
    torch.save({**load_checkpoint(path), "format": FORMAT + 1}, tmp_path / "later.pt")
    with pytest.raises(InputError, match="update reid_kit"):
        load_checkpoint(tmp_path / "later.pt")


def test_numbers_of_numpy_do_not_make_a_file_that_is_refused(tmp_path, model):
    save_checkpoint(tmp_path / "best.pt", model, labels={np.int64(7): np.int64(0)}, metrics={"mAP": np.float64(0.5)})
    content = load_checkpoint(tmp_path / "best.pt")
    assert content["labels"] == {7: 0} and content["metrics"] == {"mAP": 0.5}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_are_an_input_error(tmp_path):
    generator = np.random.default_rng(0)
    for _ in range(100):
        operations = generator.choice(list(b"(]}XuUqK.0)cNsab"), 40).tolist()
        (tmp_path / "damaged.pt").write_bytes(b"\x80\x02" + bytes(operations))
        with pytest.raises(InputError, match="damaged.pt"):
            load_checkpoint(tmp_path / "damaged.pt")


def test_another_architecture_is_named(path):
    other = Embedder(**{**ARGUMENTS, "embedding_size": 6})
    with pytest.raises(InputError, match="another architecture: embedding_size 5 there, 6 here"):
        load_state(other, load_checkpoint(path), path)


def test_a_full_disk_leaves_the_old_checkpoint(path, model, monkeypatch):
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match="best.pt.*No space left"):
        save_checkpoint(path, model)
    assert path.read_bytes() == before


def test_one_flipped_bit_is_not_taken(path, model):
    whole, random = path.read_bytes(), np.random.default_rng(0)
    state = load_checkpoint(path)["state"]
    for _ in range(25):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(path)["state"]
        except InputError as error:
            assert str(path) in str(error)
        else:  # a bit of the padding
            assert all(torch.equal(found[key], state[key]) for key in state)
    hole = bytearray(whole)
    hole[len(whole) // 2 : len(whole) // 2 + 512] = bytes(512)
    path.write_bytes(hole)
    with pytest.raises(InputError, match="best.pt is damaged: .*does not agree with its check sum"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"format": "1"}, "format '1' is no whole number"),
        ({"config": None}, "its config is None, where str"),
        ({"labels": [1]}, r"its labels is \[1\], where dict"),
        ({"training": 3}, "its training is 3, where dict"),
        ({"state": {"a": 1}}, "something else than named tensors"),
        ({"state": {"a": torch.tensor([1.0, float("nan")])}}, "a holds NaN or infinity"),
        ({"embedder": {**ARGUMENTS, "heads_of_later": 2}}, "does not know 'heads_of_later'.*update reid_kit"),
        ({"embedder": {**ARGUMENTS, "backbone": "resnet51"}}, "its model cannot be built: unknown MODEL.BACKBONE"),
        ({"embedder": {**ARGUMENTS, "height": "tall"}}, "its model cannot be built"),
        ({"embedder": {**ARGUMENTS, "std": [0, 1, 1]}}, "its model cannot be built: .*std above 0"),
        ({"embedder": {**ARGUMENTS, "levels": [["low"]]}}, "its model cannot be built: unknown level"),
    ],
)
def test_checkpoints_of_another_shape(path, changes, words):
    torch.save({**load_checkpoint(path), **changes}, path)
    with pytest.raises(InputError, match=f"best.pt.*{words}"):
        load_model(path, "cpu")


@pytest.mark.parametrize("device", ["x", "meta", "hpu", "cuda:77", "cpu:"])
def test_devices_that_compute_nothing(path, device):
    with pytest.raises(InputError, match="device .* cannot be used here.*cpu always can"):
        load_model(path, device)
