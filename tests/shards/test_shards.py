"""extract --shards and index --shards, as a user runs them."""

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from reid_kit.cli.main import run
from reid_kit.config import load_config
from reid_kit.data.readers import load_dataset
from reid_kit.evaluation import feature_files
from reid_kit.gallery import open_gallery
from reid_kit.image import read_image
from reid_kit.model.checkpoint import load_model, save_checkpoint
from reid_kit.model.embedder import Embedder
from reid_kit.shards import ShardFolder, folder, listing
from tests.end_to_end.commands import REPOSITORY, command, environment, tiny
from tests.shards.test_tars import write_tar


@pytest.fixture(scope="module")
def home(demo_root, tmp_path_factory):
    """Checkpoints of random weights; 22 photos in folders, in a table with two boxes, and in two tars."""
    home = tmp_path_factory.mktemp("shards")
    torch.manual_seed(0)
    for name in ("model", "other"):
        model = Embedder("test_resnet", "none", embedding_size=8, height=64, width=32)
        config = load_config(None, [*tiny(demo_root, home), "MODEL.EMBEDDING_SIZE", "8"])
        save_checkpoint(home / f"{name}.pt", model, config=config.dump(), dataset="demo")
    lines, samples = ["path;identity;camera;shelf;x1;y1;x2;y2"], []
    for number, record in enumerate(load_dataset("demo", demo_root).query[:22]):
        name = f"{number // 8}/photo {number:02}.jpg"
        (home / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.path, home / "photos" / name)
        box = "0;5;20;40" if number in (3, 9) else ";;;"
        lines.append(f"photos/{name};{record.identity_name};door {record.camera_name};aisle {number};{box}")
        labels = {"identity": record.identity_name, "camera": f"door {record.camera_name}", "shelf": f"aisle {number}"}
        samples += [(f"{number:02}.jpg", record.path.read_bytes()), (f"{number:02}.json", json.dumps(labels).encode())]
    (home / "photos.csv").write_text("\n".join(lines) + "\n")
    for part, members in enumerate((samples[:26], samples[26:])):
        write_tar(home / f"p-{part}.tar", members)
    return home


def extraction(home, into, source="table", checkpoint="model", size=5):
    sources = {"table": home / "photos.csv", "images": home / "photos", "tars": home / "p-{0..1}.tar"}
    given = ["--checkpoint", str(home / f"{checkpoint}.pt"), f"--{source}", str(sources[source]), "--shards", str(into)]
    return [*given, "--shard-size", str(size), "DATA.WORKERS", "0", "TEST.BATCH_SIZE", "4"]


def contents(place):
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


@pytest.mark.parametrize("source", ["table", "images", "tars"])
def test_shards_hold_what_embed_gives(home, tmp_path, source, capsys):
    assert run("extract", extraction(home, tmp_path / "s", source)) == 0
    shards = ShardFolder(tmp_path / "s")
    sizes = [5, 5, 3, 5, 4] if source == "tars" else [5, 5, 5, 5, 2]  # no shard is of two tars
    assert f"s: {len(sizes)} shards of 22 images, which list.jsonl lists" in capsys.readouterr().out
    assert [len(shard.entries) for shard in shards] == sizes and shards.missing() == []
    entries = [entry for shard in shards for entry in shard.entries]
    features = torch.from_numpy(np.concatenate([shard.features for shard in shards]))
    model = load_model(home / "model.pt")
    images = sorted((home / "photos").rglob("*.jpg"))
    expected = model.embed(images)
    if source == "table":
        assert entries[3].box == (0, 5, 20, 40) and entries[4].box is None
        for number in (3, 9):
            cut = read_image(images[number])[5:40, :20]
            expected[number] = model.embed([cut])[0]
        assert [entry.path for entry in entries] == list(map(str, images))
    if source != "images":
        assert entries[7].columns == {"shelf": "aisle 7"} and entries[7].camera.startswith("door ")
        assert all(entry.identity for entry in entries)
    torch.testing.assert_close(torch.nn.functional.normalize(features), expected, rtol=1e-5, atol=1e-6)
    arrays = dict(np.load(tmp_path / "s/000001.npz"))
    assert arrays["paths"].tolist() == [entry.path for entry in entries[5:10]] and arrays["rows"].tolist() == [
        5,
        6,
        7,
        8,
        9,
    ]
    assert [arrays["identities"].tolist(), arrays["cameras"].tolist()] == [
        [getattr(entry, name) for entry in entries[5:10]] for name in ("identity", "camera")
    ]


def test_a_restart_writes_what_is_missing(home, tmp_path, capsys):
    assert run("extract", extraction(home, tmp_path / "s")) == 0
    whole = contents(tmp_path / "s")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*.npz")}
    for name in ("000001.npz", "000004.npz"):
        (tmp_path / "s" / name).unlink()
    (tmp_path / "s/.0123456789ab.999999999.tmp").write_text("what a killed process left")
    assert run("extract", [*extraction(home, tmp_path / "s"), "TEST.BATCH_SIZE", "4", "DATA.WORKERS", "1"]) == 0
    assert contents(tmp_path / "s") == whole
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*.npz")}
    assert [name for name in now if now[name] != stamps[name]] in (
        ["000001.npz", "000004.npz"],
        ["000004.npz", "000001.npz"],
    )


class Death(BaseException):
    pass


def test_dead_at_any_moment_the_same_command_goes_on(home, tmp_path, monkeypatch):
    assert run("extract", extraction(home, tmp_path / "whole", size=11)) == 0
    replace = os.replace
    for moment in range(6):  # stamp, list, stamp, two shards
        into, left = tmp_path / str(moment), [moment]

        def dying(source, target, left=left):
            if not left[0]:
                raise Death
            left[0] -= 1
            replace(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", dying)
            if moment < 5:
                with pytest.raises(Death):
                    run("extract", extraction(home, into, size=11))
            else:
                assert run("extract", extraction(home, into, size=11)) == 0
        assert run("extract", extraction(home, into, size=11)) == 0
        assert contents(into) == contents(tmp_path / "whole")


def test_two_processes_that_are_killed_leave_what_one_process_writes(home, tmp_path):
    """Under torchrun, with kill -9 of all; one process does the rest."""
    assert run("extract", extraction(home, tmp_path / "one", size=1)) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = command("extract", *extraction(home, tmp_path / "two", size=1), launcher=launcher)
    process = subprocess.Popen(started, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 200
    while len(list((tmp_path / "two").glob("*.npz"))) < 2:
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.01)
    for pid in children(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait(60)
    process.stderr.close()
    written = contents(tmp_path / "two")
    assert run("extract", extraction(home, tmp_path / "two", size=1)) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert {name: data for name, data in contents(tmp_path / "one").items() if name in written} == {
        name: data for name, data in written.items() if not name.startswith(".")
    }


def children(pid):
    return [int(word) for word in open(f"/proc/{pid}/task/{pid}/children").read().split()]


def test_what_does_not_belong_together_is_refused(home, tmp_path, capsys):
    into = tmp_path / "s"
    assert run("extract", extraction(home, into)) == 0
    whole = contents(into)
    for arguments, words in (
        (extraction(home, into, checkpoint="other"), "another model.*: fingerprint is [0-9a-f]{64}"),
        (
            [*extraction(home, into), "TEST.FLIP", "true"],
            "features is .*no flip.*mean with the mirror",
        ),
        ([*extraction(home, into), "TEST.METRIC", "cosine"], "metric is euclidean, and cosine was expected"),
        (extraction(home, into, size=7), "shard_size is 5, and 7 was expected"),
        (extraction(home, into, "images"), "the images have changed since .*, or other labels stand beside it"),
        (
            extraction(home, into, "tars"),
            "have changed since .*: image 0 was .*photo 00.jpg and is .*p-0.tar/00",
        ),
    ):
        capsys.readouterr()
        assert run("extract", arguments) == 2
        error = capsys.readouterr().err
        assert re.search(words, error), error
        assert contents(into) == whole
    # a shard of other weights among ours, one of another place, and half a one
    assert run("extract", extraction(home, tmp_path / "other", checkpoint="other")) == 0
    for name, words in (
        ("other/000002.npz", "fingerprint"),
        ("s/000001.npz", "shard is 1, and 2 was"),
        (None, "cannot be"),
    ):
        (into / "000002.npz").write_bytes((tmp_path / name).read_bytes() if name else whole["000002.npz"][:900])
        assert run("extract", extraction(home, into)) == 2
        error = capsys.readouterr().err
        assert "000002.npz" in error and words in error
        (into / "000002.npz").write_bytes(whole["000002.npz"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("three years of work")
    assert run("extract", extraction(home, tmp_path / "mine")) == 2
    assert "holds thesis.txt, and is left alone" in capsys.readouterr().err


def test_a_source_that_changes_is_noticed(home, tmp_path, capsys):
    shutil.copytree(home / "photos", tmp_path / "photos")
    arguments = extraction(home, tmp_path / "s", "images")
    arguments[3] = str(tmp_path / "photos")
    assert run("extract", arguments) == 0
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    changed = paths[11]
    content = changed.read_bytes()
    for change, words in (
        (lambda: changed.write_bytes(content + b" "), "photo 11.jpg is another file now"),
        (lambda: changed.rename(changed.with_name("zz.jpg")), "image 11 was .*photo 11.jpg and is .*photo 12.jpg"),
        (lambda: paths[-1].unlink(), "image 11 was"),
        (
            lambda: shutil.copytree(home / "photos", tmp_path / "photos", dirs_exist_ok=True),
            "image 16 was .*16.jpg and is .*zz",
        ),
    ):
        capsys.readouterr()
        change()
        assert run("extract", arguments) == 2
        assert re.search(words, capsys.readouterr().err)


def test_a_name_that_is_no_text_is_told(home, tmp_path, capsys):
    """Whatever is to become of images that cannot be read: the list could not hold it."""
    shutil.copytree(home / "photos", tmp_path / "photos")
    (tmp_path / "photos" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    arguments = extraction(home, tmp_path / "s", "images")
    arguments[3] = str(tmp_path / "photos")
    assert run("extract", [*arguments, "DATA.ON_BAD_IMAGE", "skip"]) == 2
    assert "its name is not UTF-8 text; rename it" in capsys.readouterr().err


def test_images_that_cannot_be_read(home, tmp_path, capsys):
    """In a shard of which nothing is left, in another, and within a tar."""
    shutil.copytree(home / "photos", tmp_path / "photos")
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    for path in paths[5:11]:
        path.write_bytes(b"")
    arguments = extraction(home, tmp_path / "s", "images")
    arguments[3] = str(tmp_path / "photos")
    assert run("extract", arguments) == 2
    assert "photo 05.jpg is empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "s").glob("*.npz")] == ["000000.npz"]
    with pytest.warns(UserWarning, match="left out: .*photo 05.jpg is empty"):
        assert run("extract", [*arguments, "DATA.ON_BAD_IMAGE", "skip"]) == 0
    assert "5 shards of 22 images, which list.jsonl lists, 6 could not be read" in capsys.readouterr().out
    assert [len(shard.entries) for shard in ShardFolder(tmp_path / "s")] == [5, 0, 4, 5, 2]
    write_tar(tmp_path / "b.tar", [("a.jpg", paths[0].read_bytes()), ("b.jpg", b"\xff\xd8 no image"), ("c.jpg", b"")])
    arguments = [*extraction(home, tmp_path / "t", "tars")]
    arguments[3] = str(tmp_path / "b.tar")
    assert run("extract", arguments) == 2
    assert f"{tmp_path}/b.tar/b.jpg is truncated" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="b.tar/c.jpg is empty"):
        assert run("extract", [*arguments, "DATA.ON_BAD_IMAGE", "skip"]) == 0
    assert [[entry.path for entry in shard.entries] for shard in ShardFolder(tmp_path / "t")] == [
        [f"{tmp_path}/b.tar/a.jpg"]
    ]


@pytest.mark.parametrize("held, count", [(2**20, 500), (7, 500), (100, 200), (5, 1), (5, 0)])
def test_what_is_repeated_is_found_a_part_of_the_rows_at_a_time(monkeypatch, held, count):
    monkeypatch.setattr(listing, "HELD", held)
    keys = np.random.default_rng(0).integers(-400, 400, count)
    values, counts = np.unique(keys, return_counts=True)
    assert listing.repeated(io.BytesIO(keys.tobytes()), count) == set(values[counts > 1].tolist())


def test_rows_that_are_listed_twice(home, tmp_path, capsys):
    photo = home / "photos/0/photo 00.jpg"
    (tmp_path / "t.csv").write_text(f"path,x1,y1,x2,y2\n{photo},,,,\n{photo},0,0,9,9\n{photo},,,,\n")
    write_tar(tmp_path / "t.tar", [(name, photo.read_bytes()) for name in ("a.jpg", "b.jpg", "a.jpg")])
    for source, name in (("table", "t.csv"), ("tars", "t.tar")):
        arguments = extraction(home, tmp_path / "s", source)
        arguments[3] = str(tmp_path / name)
        assert run("extract", arguments) == 2
        assert "is listed twice" in capsys.readouterr().err


def test_a_full_disk_leaves_what_is_there(home, tmp_path, monkeypatch, capsys):
    assert run("extract", extraction(home, tmp_path / "whole")) == 0
    save, calls = feature_files.SAVE[".npz"], []

    def full(path, arrays):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, arrays)

    monkeypatch.setitem(feature_files.SAVE, ".npz", full)
    assert run("extract", extraction(home, tmp_path / "s")) == 2
    assert "000002.npz: No space left on device" in capsys.readouterr().err
    assert sorted(contents(tmp_path / "s")) == ["000000.npz", "000001.npz", "list.jsonl", "shards.json"]
    assert run("extract", extraction(home, tmp_path / "s")) == 0
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_a_gallery_of_shards_is_one_of_the_table(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = ["--checkpoint", str(home / "model.pt")]
    assert run("extract", extraction(home, tmp_path / "s")) == 0
    (tmp_path / "s/000003.npz").rename(tmp_path / "000003.npz")
    assert run("index", ["g", *model, "--shards", "s"]) == 2
    assert "1 of 5 shards in s are not there yet, first 000003.npz" in capsys.readouterr().err
    (tmp_path / "000003.npz").rename(tmp_path / "s/000003.npz")
    for arguments, words in (
        (["--checkpoint", str(home / "other.pt"), "--shards", "s"], "another model.*fingerprint"),
        ([*model, "--shards", "s", "TEST.FLIP", "true"], "features is inference feature.*mean with the mirror image"),
        ([*model, "--shards", "s", "--prune"], "--prune would have no effect"),
        ([*model, "--shards", "nowhere"], "nowhere holds no shards; reid-kit extract --shards nowhere"),
    ):
        assert run("index", ["g", *arguments]) == 2
        assert re.search(words, capsys.readouterr().err)
        assert not (tmp_path / "g").exists()
    assert run("index", ["g", *model, "--shards", "s"]) == 0
    assert run("index", ["h", *model, "--table", str(home / "photos.csv")]) == 0
    (found, vectors), (wanted, others) = (next(open_gallery(name).batches()) for name in ("g", "h"))
    order = [found.index(entry) for entry in wanted]
    np.testing.assert_allclose(vectors[order], others, atol=1e-6)
    assert run("index", ["g", *model, "--table", str(home / "photos.csv")]) == 0
    assert "22 unchanged" in capsys.readouterr().out


def test_images_in_tars_are_found(home, tmp_path, monkeypatch, capsys, recwarn):
    monkeypatch.chdir(tmp_path)
    model = ["--checkpoint", str(home / "model.pt")]
    assert run("extract", extraction(home, tmp_path / "features", "tars")) == 0
    (example,) = re.findall(
        r"```python\n(from reid_kit.shards.*?)```", (REPOSITORY / "docs/scale.md").read_text(), re.S
    )
    exec(example, {})
    assert capsys.readouterr().out.count("(8,)") == 22
    assert run("index", ["g", *model, "--shards", "features"]) == 0
    assert run("search", ["g", *model, "--image", str(home / "photos/0/photo 03.jpg"), "--output", "found"]) == 0
    (answer,) = json.loads((tmp_path / "found/matches.json").read_text())["queries"]
    assert answer["matches"][0]["path"] == f"{home}/p-0.tar/03.jpg" and not recwarn.list


def test_options_that_do_not_go_together(home, tmp_path, capsys):
    model = ["--checkpoint", str(home / "model.pt")]
    photos, shards = ["--images", str(home / "photos")], ["--shards", str(tmp_path / "s")]
    for arguments, words in (
        ([*photos, *shards, "--output", "x.npz"], "give either --output FILE or --shards DIR"),
        (photos, "give either --output FILE or --shards DIR"),
        ([*photos, "--table", "t.csv", *shards], "one of --images DIR, --table FILE and --tars"),
        (["--data", "demo", *shards], "one of --images DIR, --table FILE and --tars"),
        ([*photos, *shards, "--data", "demo"], "--data would have no effect: --output FILE takes datasets"),
        ([*photos, *shards, "--shard-size", "0"], "--shard-size must be at least 1"),
        ([*photos, *shards, "DATA.CACHE", "disk"], "DATA.CACHE would have no effect"),
        (["--table", "t.csv", "--output", "x.npz"], "--table would have no effect"),
        ([*photos, "--shard-size", "9", "--output", "x.npz"], "--shard-size would have no effect"),
    ):
        assert run("extract", [*model, *arguments]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_folders_that_hold_no_shards(tmp_path):
    (tmp_path / folder.STAMP).write_text('{"kind": "shards of reid_kit", "version": 9, "list": {}, "plan": {}}')
    with pytest.raises(folder.InputError, match="version 9"):
        ShardFolder(tmp_path)
