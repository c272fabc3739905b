"""What a user can get wrong, each with one clear error and nothing lost."""

import io

import pytest
import torch

from reid_kit.cli.main import run
from tests.data import trees
from tests.end_to_end.commands import REPOSITORY, tiny

CONFIG = str(REPOSITORY / "configs/market_srt.yaml")


@pytest.fixture
def fails(demo_root, tmp_path, capsys):
    """Runs tools/train.py on the tiny demo with changes; returns its one error."""

    def train(**changes):
        output = tmp_path / "run"
        assert run("train", ["--config", CONFIG, *tiny(demo_root, output, **changes)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and "Traceback" not in error
        assert "image" in error or not output.exists()  # what is wrong before the first batch leaves nothing behind
        return error

    return train


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"DATA__ROOT": "/nowhere"}, ["no demo in /nowhere", "make_demo.py"]),
        ({"DATA__NAME": "demos"}, ["unknown dataset 'demos'", "Did you mean 'demo'"]),
        ({"DATA__OPTIONS": "{boxes: x}"}, ["option of dataset 'demo'", "boxes"]),
        ({"MODEL__BACKBONE": "resnet500"}, ["unknown MODEL.BACKBONE 'resnet500'", "resnet50"]),
        ({"MODEL__WEIGHTS": "missing.pth"}, ["missing.pth", "no such file"]),
        ({"MODEL__POOLING": "gen"}, ["MODEL.POOLING", "gem"]),
        ({"MODEL__BACKBON": "resnet50"}, ["MODEL.BACKBON", "MODEL.BACKBONE", "command line"]),
        ({"SAMPLER__P": "100"}, ["SAMPLER.P is 100", "12 identities"]),
        ({"LOSS__TERMS": "[{name: tripelt}]"}, ["unknown loss 'tripelt'", "Did you mean 'triplet'"]),
        ({"LOSS__TERMS": "[{name: triplet, margn: 1}]"}, ["margn", "margin"]),
        ({"LOSS__TERMS": "[triplet]"}, ["LOSS.TERMS[0]", "{name: softmax}"]),
        ({"LOSS__TERMS": "[{name: triplet, feature: neck}]"}, ["feature of LOSS.TERMS[0]", "inference, metric"]),
        ({"LOSS__TERMS": "[{name: histogram, memory: 9}]"}, ["histogram", "takes no memory"]),
        ({"LOSS__TERMS": "[]"}, ["LOSS.TERMS is empty"]),
        ({"LOSS__TERMS": "[{name: [softmax]}]"}, ["LOSS.TERMS[0]", "{name: softmax}"]),
        ({"LOSS__TERMS": "[{name: softmax, weight: big}]"}, ["LOSS.TERMS[0]", "weight must be a number", "'big'"]),
        ({"TRAIN__DEVICE": "cuda:9"}, ["TRAIN.DEVICE 'cuda:9'", "cpu always can"]),
        ({"TRAIN__EPOCHS": "some"}, ["TRAIN.EPOCHS must be int"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value),
)
def test_wrong_keys_and_values(fails, changes, words):
    error = fails(**changes)
    assert all(word in error for word in words), error


def test_market_is_asked_for_by_name_and_place(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", ["--config", CONFIG]) == 2
    error = capsys.readouterr().err
    assert "datasets/Market-1501-v15.09.15/bounding_box_train" in error and "authors" in error and "--root" in error


def test_a_broken_image_stops_or_is_skipped(fails, demo_root, tmp_path, capsys):
    image = sorted((demo_root / "people/bounding_box_train").iterdir())[0]
    whole = image.read_bytes()
    try:
        image.write_bytes(whole[: len(whole) // 2])
        assert f"image {image} is truncated" in fails()
        keys = tiny(demo_root, tmp_path / "skip", DATA__ON_BAD_IMAGE="skip", TRAIN__EPOCHS="1")
        with pytest.warns(UserWarning, match="left out: image"):
            assert run("train", ["--config", CONFIG, *keys]) == 0
    finally:
        image.write_bytes(whole)


def test_a_dry_run_shows_config_and_size_without_the_data(tmp_path, capsys):
    assert run("train", ["--config", CONFIG, "--dry-run", *tiny(tmp_path / "none", tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    assert "BACKBONE: test_resnet" in printed.out and "million parameters" in printed.out
    assert "no demo in" in printed.err


def test_a_dry_run_checks_batches_and_loss(demo_root, tmp_path, capsys):
    for change, words in (({"SAMPLER__P": "100"}, "SAMPLER.P is 100"), ({"LOSS__TERMS": "[{name: x}]"}, "loss 'x'")):
        assert run("train", ["--config", CONFIG, "--dry-run", *tiny(demo_root, tmp_path / "run", **change)]) == 2
        assert words in capsys.readouterr().err


def test_a_dry_run_notes_what_few_would_want(tmp_path, capsys):
    folder = trees.market(tmp_path)  # 4 images of each training identity
    trees.touch(folder / "bounding_box_train", "0001_c1s1_009_00.jpg")
    keys = {"DATA__NAME": "market1501", "SAMPLER__P": "2", "SCHEDULE__NAME": "exponential"}
    for k, note in (("2", "1 of 3 training identities have fewer than SAMPLER.K, 2, images"), ("1", "")):
        arguments = ["--config", CONFIG, "--dry-run", *tiny(folder, tmp_path / "run", SAMPLER__K=k, **keys)]
        assert run("train", arguments) == 0
        printed = capsys.readouterr().out
        assert note in printed and ("fewer than SAMPLER.K" in printed) == bool(note)
        assert "note: 1 identities are in train and in test, as [0001]" in printed
        assert "note: the learning rate stays constant" in printed


def test_a_test_of_nothing(tmp_path, capsys):
    assert run("test", []) == 2
    assert "nothing to test" in capsys.readouterr().err
    assert run("test", ["--checkpoint", str(tmp_path / "best.pt")]) == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_a_resume_from_other_files(demo_root, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["--config", CONFIG, *tiny(demo_root, folder, TRAIN__EPOCHS="1")]
    assert run("train", arguments) == 0
    last = (folder / "last.pt").read_bytes()
    best = (folder / "best.pt").read_bytes()
    relabelled = torch.load(io.BytesIO(last), weights_only=True)
    relabelled["labels"] = {1: 0}
    other = io.BytesIO()
    torch.save(relabelled, other)
    for content, words in (
        (last[: len(last) // 2], "truncated"),
        (b"hello", "another kind of file"),
        (best, "without a training state"),
        (other.getvalue(), "trained on 1 identities"),
    ):
        (folder / "last.pt").write_bytes(content)
        capsys.readouterr()
        assert run("train", [*arguments, "--resume"]) == 2
        assert words in capsys.readouterr().err
        assert (folder / "last.pt").read_bytes() == content and (folder / "best.pt").read_bytes() == best


def test_a_resume_of_nothing(demo_root, tmp_path, capsys):
    assert run("train", ["--config", CONFIG, "--resume", *tiny(demo_root, tmp_path / "run")]) == 2
    assert "nothing to resume" in capsys.readouterr().err


def in_market_layout(folder, test=("0003_c1s1_1.png", "0003_c2s1_1.png")):
    """Two training identities and one query; by default its match is in another camera."""
    query, gallery = test
    trees.touch(folder / "bounding_box_train", *(f"000{i}_c{c}s1_1.png" for i in (1, 2) for c in (1, 2)))
    trees.touch(folder / "query", query)
    trees.touch(folder / "bounding_box_test", gallery)
    return folder


def few(root, output, **changes):
    few_images = {"DATA__NAME": "market1501", "SAMPLER__P": "2", "SAMPLER__K": "2", "TRAIN__EPOCHS": "1"}
    return ["--config", CONFIG, *tiny(root, output, **{**few_images, **changes})]


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_what_the_doctor_knows_is_said_before_a_run(tmp_path, capsys, flags):
    lonely = in_market_layout(tmp_path / "lonely", ("0003_c1s1_1.png", "0003_c1s1_2.png"))
    whole = in_market_layout(tmp_path / "whole")
    table = "path,identity,split,x1,y1,x2,y2\n{}a.png,ann,query,,,,\nb.png,ann,gallery,,,,\n"
    trees.touch(tmp_path / "none", "dataset.csv", content=table.format("").encode())
    trees.touch(
        tmp_path / "boxes",
        "dataset.csv",
        content=table.format("t.png,x,train,0,0,1,1\nt.png,y,train,1,0,2,1\n").encode(),
    )
    for changes, words in (
        ({"DATA__ROOT": lonely}, "1 of 1 queries have no match in another camera"),
        ({"DATA__ROOT": whole, "DATA__USE_BOX": "true"}, "6 of 6 images have no box"),
        ({"DATA__ROOT": whole, "SAMPLER__P": "1", "SAMPLER__K": "1"}, "a batch of one image"),
        ({"DATA__ROOT": tmp_path / "none", "DATA__NAME": "csv"}, "csv has no image of train"),
        ({"DATA__ROOT": tmp_path / "boxes", "DATA__NAME": "csv"}, "t.png shows several boxes"),
    ):
        changes = {key: str(value) for key, value in changes.items()}
        assert run("train", [*few("", tmp_path / "run", **changes), *flags]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_dry_run_reads_a_batch_the_weights_and_the_folder(tmp_path, capsys):
    root, output = in_market_layout(tmp_path / "data"), tmp_path / "run"
    (tmp_path / "w.pth").write_bytes(b"nothing")
    for changes, words in (
        ({"TRAIN__DEVICE": "meta"}, "TRAIN.DEVICE 'meta' cannot be used"),
        ({"MODEL__WEIGHTS": str(tmp_path / "w.pth")}, "w.pth"),
    ):
        assert run("train", [*few(root, output, **changes), "--dry-run"]) == 2
        assert words in capsys.readouterr().err
    trees.touch(output, "last.pt")
    assert run("train", [*few(root, output), "--dry-run"]) == 2
    assert "run already holds a run" in capsys.readouterr().err
    for image in (root / "bounding_box_train").iterdir():
        image.write_bytes(b"")
    assert run("train", [*few(root, tmp_path / "other"), "--dry-run"]) == 2
    assert "is empty" in capsys.readouterr().err


def test_errors_of_the_system_end_in_one_line(tmp_path, capsys, monkeypatch):
    def fail(error):
        def command(arguments):
            raise error

        monkeypatch.setattr("reid_kit.cli.doctor.main", command)
        assert run("doctor", ["--data", "demo"]) == 2
        return capsys.readouterr().err

    assert fail(OSError(30, "Read-only file system", "/data/a.pt")) == "error: /data/a.pt: Read-only file system\n"
    assert fail(PermissionError(13, "Permission denied", "a", None, "b")) == "error: b: Permission denied\n"
    assert fail(OSError("no name")) == "error: no name\n"
    assert "nested too deep" in fail(RecursionError()) and "out of memory" in fail(MemoryError())
    assert "\\udcff" in fail(OSError(2, "No such file", "a\udcff"))


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "n" * 300, "file/below"])
def test_paths_that_cannot_be(tmp_path, capsys, name):
    (tmp_path / "file").write_text("x")
    path = f"{tmp_path}/{name}"
    for arguments in (
        ("train", "--config", path),
        ("train", "--config", CONFIG, "DATA.ROOT", path),
        ("train", *few(in_market_layout(tmp_path / "data"), path)),
        ("doctor", "--data", "market1501", "--root", path),
        ("test", "--checkpoint", path),
        ("test", "--features", f"{path}.npz"),
        ("prepare_cuhk03", "--raw", path, "--lists", path, "--output", str(tmp_path / "out")),
    ):
        assert run(arguments[0], arguments[1:]) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error


@pytest.mark.parametrize(
    "options, words",
    [
        (["boxes"], "'boxes' has no value"),
        (["boxes", "[["], "the value of an option cannot be read"),
        (["name", "x"], "unknown option of dataset 'cuhk03_np': 'name'"),
        (["check_images", "false"], "unknown option of dataset 'cuhk03_np': 'check_images'"),
        (["boxes", "2026-11-31"], "the value of an option cannot be read"),
    ],
)
def test_options_of_the_doctor(tmp_path, capsys, options, words):
    assert run("doctor", ["--data", "cuhk03_np", "--root", str(tmp_path), *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("options", ["{name: x}", "{root: x}", "{1: x}", "{boxes: [a]}"])
def test_options_of_a_reader(tmp_path, capsys, options):
    arguments = few(tmp_path, tmp_path / "run", DATA__NAME="cuhk03_np", DATA__OPTIONS=options)
    assert run("train", arguments) == 2
    assert "option" in capsys.readouterr().err.lower()
