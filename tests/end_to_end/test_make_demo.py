"""make_demo leaves what it did not make."""

import json
import os
import subprocess
import sys

import pytest

from reid_kit.data.demo import write_demo, writer
from reid_kit.errors import InputError
from reid_kit.files import hold
from tests.end_to_end.commands import refused


def test_the_demo_leaves_what_somebody_put_there(tmp_path, monkeypatch, capsys):
    root = tmp_path / "demo"
    write_demo(root, train=2, test=2)
    (root / "people/query/thesis.txt").write_text("three years of work")
    (root / "runs").mkdir()
    (root / "runs/last.pt").write_text("weights")
    first = set(root.rglob("*.jpg"))
    write_demo(root, seed=1, train=2, test=2)
    assert (root / "people/query/thesis.txt").read_text() == "three years of work"
    assert (root / "runs/last.pt").read_text() == "weights"
    stamp = json.loads((root / "demo.json").read_text())
    images = set(root.rglob("*.jpg"))
    assert images == {root / name for name in stamp["files"] if name.endswith(".jpg")} and images != first
    for content in ("{", '{"name": "my own"}', json.dumps({**stamp, "kind": "x"})):
        (root / "demo.json").write_text(content)
        refused(capsys, "make_demo", ["--root", root], "is not this demo data", "left alone")
        assert images == set(root.rglob("*.jpg"))
    (root / "demo.json").write_text(json.dumps({**stamp, "files": ["../../secret.txt", "runs/last.pt"]}))
    (tmp_path / "secret.txt").write_text("mine")
    with hold(root, ""):
        refused(capsys, "make_demo", ["--root", root], "is in use", f"pid {os.getpid()}")
    monkeypatch.setattr(writer, "write_people", lambda folder, *arguments, **options: folder.mkdir(parents=True))
    monkeypatch.setattr(writer, "write_garments", lambda *arguments: None)
    (root / ".half").mkdir()
    write_demo(root, seed=2)
    assert (tmp_path / "secret.txt").exists() and (root / "runs/last.pt").exists()


def test_a_demo_that_is_broken_off_leaves_nothing_and_a_killed_one_is_cleared(tmp_path, monkeypatch):
    def broken(folder, *arguments):
        (folder / "in-shop/Eval").mkdir(parents=True)
        (folder / "in-shop/Eval/list_eval_partition.txt").write_text("half")
        raise KeyboardInterrupt

    real = writer.write_garments
    monkeypatch.setattr(writer, "write_garments", broken)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "demo", train=2, test=2)
    assert not (tmp_path / "demo").exists()
    monkeypatch.setattr(writer, "write_garments", real)
    kill = (
        "import os, reid_kit.data.demo.writer as w\n"
        "w.write_garments = lambda *a: os.kill(os.getpid(), 9)\n"
        f"w.write_demo({str(tmp_path / 'demo')!r}, train=2, test=2)"
    )
    assert subprocess.run([sys.executable, "-c", kill]).returncode == -9
    assert (tmp_path / "demo/.half/people/query").is_dir()
    write_demo(tmp_path / "demo", train=2, test=2)
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"demo.json", "people", "garments"}
    with pytest.raises(InputError, match="--seed must be at least 0"):
        write_demo(tmp_path / "demo", seed=-1)
