"""A folder to share: what it holds, what it does not, and what is refused."""

import json

import numpy as np
import pytest
import torch

from reid_kit import load_model
from reid_kit.cli.main import run
from reid_kit.errors import InputError
from reid_kit.model.checkpoint import load_checkpoint, save_checkpoint
from reid_kit.model.embedder import Embedder
from reid_kit.model.fingerprint import fingerprint
from reid_kit.operating_point import OperatingPoint

IMAGES = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
CONFIG = """
DATA: {NAME: market1501, ROOT: /home/alice/data, OPTIONS: {file: 'C:/secret/list.csv'}}
MODEL: {WEIGHTS: ~/weights/r50.pt}
OPTIMIZER: {LR: 1.0e-05}
TRAIN: {OUTPUT: /home/alice/runs/1}
"""


POINT = OperatingPoint(0.31, 0.82, 0.001, (0.0008, 0.0012), 90_000)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Embedder("test_resnet", "none", neck="bnneck", pooling="gem", height=64, width=32, mean=(0.1, 0.2, 0.3))
    model(IMAGES)
    return model.eval()


@pytest.fixture
def checkpoint(model, tmp_path):
    save_checkpoint(
        tmp_path / "best.pt",
        model,
        config=CONFIG,
        dataset="market1501",
        labels={12345: 0},
        metrics={"mAP": 0.871, "CMC@1": 0.944},
        training={"epoch": 3},
    )
    return tmp_path / "best.pt"


@pytest.fixture
def shared(checkpoint, tmp_path):
    loaded = load_model(checkpoint, "cpu")
    loaded.thresholds = [POINT]
    loaded.save_pretrained(tmp_path / "new" / "shared")
    return tmp_path / "new" / "shared"


def test_it_loads_as_the_checkpoint_does(model, shared, checkpoint):
    loaded = load_model(shared, "cpu")
    assert not loaded.training and fingerprint(loaded) == fingerprint(model)
    for mine, theirs in zip(loaded(IMAGES), model(IMAGES)):
        assert torch.equal(mine, theirs)
    content = load_checkpoint(shared)
    assert content["dataset"] == "market1501" and content["metrics"]["mAP"] == 0.871
    assert loaded.thresholds == [POINT]
    assert content["training"] is None and content["labels"] == {}


def test_its_files(shared, model):
    assert sorted(path.name for path in shared.iterdir()) == ["README.md", "config.json", "weights.safetensors"]
    text = (shared / "config.json").read_text() + (shared / "README.md").read_text()
    for private in ("alice", "secret", "weights/r50", "12345"):
        assert private not in text
    config = json.loads((shared / "config.json").read_text())
    assert config["config"]["OPTIMIZER"] == {"LR": 1e-5} and config["fingerprint"] == fingerprint(model)


def test_its_card(shared):
    card = (shared / "README.md").read_text()
    assert card.startswith("---\n") and "reid_kit.load_model(" in card
    for words in (
        "market1501",
        "mAP: 87.1 %",
        "threshold 0.31",
        "0.0008 to 0.0012",
        "academic research",
        "Intended use",
    ):
        assert words in card
    assert "{" not in card.replace("{12", "")
    data = pytest.importorskip("huggingface_hub").ModelCard(card).data  # as the hub reads it
    assert data.license == "other" and data.library_name == "reid_kit" and "embedding" in data.tags


def test_a_card_of_a_model_that_nobody_trained(model, tmp_path):
    Embedder("test_resnet", "none", height=64, width=32).save_pretrained(tmp_path / "bare")
    card = (tmp_path / "bare" / "README.md").read_text()
    assert "does not name" in card and "tells of no test" in card and "not known" in card
    assert load_model(tmp_path / "bare", "cpu").facts["config"] == "{}\n"


def test_its_config_goes_on_with_its_numbers(shared):
    from reid_kit.config import config_from_text

    config = config_from_text(load_checkpoint(shared)["config"])
    assert config.OPTIMIZER.LR == 1e-5 and config.DATA.NAME == "market1501" and config.DATA.ROOT == "datasets"


def test_nothing_is_written_over(shared, model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my notes")
    (tmp_path / "file").write_text("my file")
    for folder, words in (
        (shared, "config.json already"),
        (tmp_path / "mine", "README.md already"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(InputError, match=words):
            model.save_pretrained(folder)
    assert (tmp_path / "mine" / "README.md").read_text() == "my notes" and len(list((tmp_path / "mine").iterdir())) == 1


def damage(folder, what):
    config = json.loads((folder / "config.json").read_text())
    if what == "no config":
        (folder / "config.json").unlink()
    elif what == "no weights":
        (folder / "weights.safetensors").unlink()
    elif what == "cut config":
        (folder / "config.json").write_text((folder / "config.json").read_text()[:40])
    elif what == "other json":
        (folder / "config.json").write_text("[1, 2]")
    elif what == "later":
        (folder / "config.json").write_text(json.dumps({**config, "format": 99}))
    elif what == "cut weights":
        (folder / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:1000])
    elif what == "flipped":
        content = bytearray((folder / "weights.safetensors").read_bytes())
        content[-1000] ^= 1
        (folder / "weights.safetensors").write_bytes(content)
    elif what == "other size":
        config["embedder"]["embedding_size"] = 7
        (folder / "config.json").write_text(json.dumps(config))
    elif what == "other thresholds":
        (folder / "config.json").write_text(json.dumps({**config, "thresholds": 3}))
    elif what == "other mean":
        config["embedder"]["mean"] = [0.5, 0.5, 0.5]
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "what, words",
    {
        "no config": "no config.json",
        "no weights": "no weights.safetensors",
        "cut config": "config.json cannot be read",
        "other json": "config.json cannot be read",
        "later": "update reid_kit",
        "cut weights": "cannot be read",
        "flipped": "damaged",
        "other size": "another architecture|embedding_size|missing",
        "other thresholds": "config.json cannot be read",
        "other mean": "changed since",
    }.items(),
    ids=lambda value: value if " " not in value else None,
)
def test_damaged_folders(shared, what, words):
    damage(shared, what)
    with pytest.raises(InputError, match=words) as caught:
        load_model(shared, "cpu")
    assert str(shared) in str(caught.value)


def test_weights_of_other_files_are_not_read(shared, tmp_path):
    """What a folder's config.json names is the folder's affair alone."""
    config = json.loads((shared / "config.json").read_text())
    config["embedder"]["weights"] = str(tmp_path / "best.pt")
    (shared / "config.json").write_text(json.dumps(config))
    (tmp_path / "best.pt").unlink()
    assert load_model(shared, "cpu").embedding_size > 0


def test_a_model_of_the_hub(shared, tmp_path, monkeypatch):
    """As the library keeps what it fetched, and finds it again without a network."""
    constants = pytest.importorskip("huggingface_hub").constants
    kept = tmp_path / "hub" / "models--org--name"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    (kept / "snapshots").mkdir()
    shared.rename(kept / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model("hf://org/name", "cpu").facts["dataset"] == "market1501"
    assert load_model("hf://org/name@0123456789abcdef0123456789abcdef01234567", "cpu").embedding_size > 0
    for address in ("hf://org/other", "hf://org/name@feed", "hf://", "hf://a/b/c", "hf://no such name!"):
        with pytest.raises(InputError, match="cannot be had .*Is there a network"):
            load_model(address, "cpu")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        load_model("hf://org/name", "cpu")


def test_it_stands_in_for_a_checkpoint(shared, demo_root, tmp_path):
    photos = ["--images", str(demo_root / "people/query"), "DATA.WORKERS", "0"]
    for source, output in ((shared, "a.npz"), (tmp_path / "best.pt", "b.npz")):
        assert run("extract", ["--checkpoint", str(source), "--output", str(tmp_path / output), *photos]) == 0
    one, other = (np.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    np.testing.assert_array_equal(one["features"], other["features"])
