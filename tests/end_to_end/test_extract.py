"""Features in a file give the numbers of the model that made them."""

import json
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import scipy.io

from reid_kit.cli import extract
from reid_kit.cli.main import run
from reid_kit.evaluation.feature_files import write_feature_file
from tests.end_to_end.commands import REPOSITORY, tiny


@pytest.fixture(scope="module")
def trained(demo_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract") / "run"
    keys = tiny(demo_root, folder, TRAIN__EPOCHS="1", TEST__METRIC="cosine")
    assert run("train", ["--config", str(REPOSITORY / "configs/market_srt.yaml"), *keys]) == 0
    return folder


@pytest.fixture
def photos(trained, demo_root):
    """The arguments of an extraction of the demo's queries."""
    return ["--checkpoint", str(trained / "best.pt"), "--images", str(demo_root / "people/query")]


def broken_off(monkeypatch, after):
    """Lets `embed_records` be called `after` times, then interrupts it once; returns the sizes of its parts."""
    calls, embed = [], extract.embed_records

    def broken(*parameters):
        calls.append(len(parameters[1]))
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return embed(*parameters)

    monkeypatch.setattr(extract, "embed_records", broken)
    return calls


def test_features_of_a_dataset(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(extract, "PART", 50)
    checkpoint = ["--checkpoint", str(trained / "best.pt"), "--data", "demo", "--output"]
    for suffix in (".npz", ".safetensors"):
        assert run("extract", [*checkpoint, str(tmp_path / f"demo{suffix}")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.npz", "demo.safetensors"]
    expected = json.loads((trained / "results.json").read_text())
    arrays = dict(np.load(tmp_path / "demo.npz"))
    query, gallery = (arrays["split"] == name for name in ("query", "gallery"))
    assert query.sum() == expected["queries"] and str(arrays["model"]) == "test_resnet"
    with safetensors.safe_open(tmp_path / "demo.safetensors", "np") as file:
        assert set(file.keys()) == {"features", "identities", "cameras"}  # and as text:
        for name in ("features", "identities", "cameras"):
            assert np.array_equal(file.get_tensor(name), arrays[name])
        texts = {name: json.loads(text) for name, text in file.metadata().items()}
    assert len(texts.pop("sha256")) == 64
    names = ("paths", "split", "model", "notes", "identity_names", "camera_names")
    assert texts == {name: arrays[name].tolist() for name in names}
    assert len(texts["paths"]) == len(arrays["features"])
    mat = {}
    for name, rows in (("query", query), ("gallery", gallery)):
        mat |= {
            f"{name}_f": arrays["features"][rows],
            f"{name}_label": arrays["identities"][rows],
            f"{name}_cam": arrays["cameras"][rows],
        }
    scipy.io.savemat(tmp_path / "demo.mat", mat)
    capsys.readouterr()
    for suffix in (".npz", ".safetensors", ".mat"):
        metric = [] if suffix != ".mat" else ["TEST.METRIC", "cosine"]  # our own files say which
        assert run("test", ["--features", str(tmp_path / f"demo{suffix}"), *metric]) == 0
        assert f"{100 * expected['mAP']:.1f}" in capsys.readouterr().out
        folder = tmp_path / f"test_demo{suffix}{'_metric_cosine' if metric else ''}"
        found = json.loads((folder / "results.json").read_text())
        assert found["mAP"] == pytest.approx(expected["mAP"]) and (folder / "results.md").exists()
        assert metric or found["protocol"] == expected["protocol"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_an_extraction_goes_on_after_its_last_part(photos, tmp_path, monkeypatch, suffix):
    whole, again = tmp_path / f"whole{suffix}", tmp_path / f"again{suffix}"
    monkeypatch.setattr(extract, "PART", 10)
    sizes = broken_off(monkeypatch, after=-1)
    assert run("extract", [*photos, "--output", str(whole)]) == 0
    expected = [*sizes[:2], *sizes[1:]]  # the second part is broken off and done again
    assert len(sizes) > 2 and max(sizes) == 10
    sizes = broken_off(monkeypatch, after=1)
    assert run("extract", [*photos, "--output", str(again)]) == 130
    with open(again.with_name(f"{again.name}.partial") / "features", "ab") as file:
        file.write(b"half a row")  # as far as the disk got when the power went
    assert run("extract", [*photos, "--output", str(again)]) == 0
    assert sizes == expected
    read = np.load if suffix == ".npz" else safetensors.numpy.load_file
    np.testing.assert_array_equal(read(whole)["features"], read(again)["features"])
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, again.name}


def test_a_part_of_another_extraction_is_not_joined(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extract, "PART", 10)
    broken_off(monkeypatch, after=1)
    arguments = [*photos, "--output", str(tmp_path / "a.npz")]
    assert run("extract", arguments) == 130
    assert run("extract", [*arguments, "TEST.FLIP", "true"]) == 2
    assert "a.npz.partial holds a part of another extraction" in capsys.readouterr().err
    assert run("extract", [*arguments, "TEST.BATCH_SIZE", "7"]) == 0  # no feature depends on that


def test_unreadable_images_are_left_out_where_asked(photos, demo_root, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted((demo_root / "people/query").iterdir())[:7]):
        (folder / f"{number}.jpg").write_bytes(b"" if number in (1, 4) else path.read_bytes())
    monkeypatch.setattr(extract, "PART", 3)
    arguments = [*photos[:-1], str(folder), "--output"]
    assert run("extract", [*arguments, str(tmp_path / "a.npz")]) == 2
    assert "1.jpg is empty" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="left out"):
        assert run("extract", [*arguments, str(tmp_path / "b.npz"), "DATA.ON_BAD_IMAGE", "skip"]) == 0
    arrays = dict(np.load(tmp_path / "b.npz"))
    assert [path[-5] for path in arrays["paths"]] == ["0", "2", "3", "5", "6"] and len(arrays["features"]) == 5
    assert arrays.keys() == {"features", "paths", "model", "notes"}  # photos of a folder have no identities
    assert run("test", ["--features", str(tmp_path / "b.npz")]) == 2
    assert "has no array 'split'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_writing_takes_less_memory_than_the_features(tmp_path, suffix):
    np.arange(2**24, dtype=np.float32).tofile(tmp_path / "features")
    features = np.memmap(tmp_path / "features", np.float32, "r", shape=(2**15, 2**9))
    tracemalloc.start()
    try:
        write_feature_file(tmp_path / f"out{suffix}", {"features": features, "paths": np.array(["é.jpg"])})
        assert tracemalloc.get_traced_memory()[1] < features.nbytes / 2
    finally:
        tracemalloc.stop()
    read = np.load if suffix == ".npz" else safetensors.numpy.load_file
    assert np.array_equal(read(tmp_path / f"out{suffix}")["features"], features)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".mat"])
@pytest.mark.parametrize("content", [b"", b"no such file", b"PK\x03\x04" + bytes(40), bytes(200)], ids=len)
def test_damaged_files(tmp_path, capsys, suffix, content):
    file = tmp_path / f"features{suffix}"
    file.write_bytes(content)
    assert run("test", ["--features", str(file)]) == 2
    error = capsys.readouterr().err
    assert str(file) in error and ("cannot be read" in error or "has no array" in error)


def test_files_that_cannot_be_used(trained, tmp_path, capsys):
    np.savez(tmp_path / "bare.npz", features=np.ones((3, 2)))
    np.savez(tmp_path / "short.npz", features=np.ones((3, 2)), identities=np.arange(2), split=np.array(["query"] * 3))
    zero = {"features": np.eye(4)[:3] * [[1], [0], [1]], "identities": np.zeros(3, int)}
    np.savez(tmp_path / "zero.npz", **zero, split=np.array(["query", "gallery", "gallery"]))
    safetensors.numpy.save_file({"x": np.ones(2)}, tmp_path / "bare.safetensors")
    checkpoint = ["--checkpoint", str(trained / "best.pt")]
    for arguments, words in (
        (["test", "--features", str(tmp_path / "bare.npz")], "no array 'split'"),
        (["test", "--features", str(tmp_path / "bare.safetensors")], "no array 'features'; it holds x"),
        (["test", "--features", str(tmp_path / "short.npz")], "3 rows of features, 3 rows of split, 2 rows of id"),
        (["test", "--features", str(tmp_path / "none.mat")], "cannot be read"),
        (
            ["test", "--features", str(tmp_path / "zero.npz"), "TEST.METRIC", "cosine"],
            f"{tmp_path / 'zero.npz'}: 1 gallery features are zero (or their squares are), which have no cosine",
        ),
        (["test", "--features", "features.csv"], ".npz, .safetensors or .mat"),
        (["extract", *checkpoint, "--output", "x.npz"], "either --data NAME or --images"),
        (["extract", *checkpoint, "--images", ".", "--output", str(tmp_path / "bare.npz")], "bare.npz exists"),
        (["extract", *checkpoint, "--images", ".", "--output", "features.h5"], "must end in .npz or .safetensors"),
        (["extract", *checkpoint, "--images", str(tmp_path), "--output", str(tmp_path / "x.npz")], "no images below"),
    ):
        assert run(arguments[0], arguments[1:]) == 2
        assert words in capsys.readouterr().err
