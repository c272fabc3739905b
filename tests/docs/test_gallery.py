"""Every command of docs/gallery.md from an empty folder, on fewer people and a smaller model."""

import json
import re
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from reid_kit.cli import make_demo
from reid_kit.cli.main import run
from reid_kit.data.demo import write_demo
from reid_kit.data.readers import load_dataset
from tests.end_to_end.commands import REPOSITORY

SMALL = "DATA.HEIGHT 64 DATA.WIDTH 32 DATA.WORKERS 0 SAMPLER.P 4 SAMPLER.K 2 TRAIN.EPOCHS 1 MODEL.BACKBONE test_resnet"


def commands() -> list[list[str]]:
    text = (REPOSITORY / "docs/gallery.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split() for block in blocks for line in block.splitlines()]


def correct(table):
    """Gives each row its person, as a reader would by hand: an epoch of training groups by background."""
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    rows = [[path, Path(path).name[:4], *others] for path, _, *others in rows]
    table.write_text("\n".join(map(",".join, [header, *rows])))


def test_the_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.setattr(make_demo, "write_demo", partial(write_demo, train=8, test=8))
    assert len(commands()) == 8
    printed = {}
    for number, (python, script, *arguments) in enumerate(commands()):
        assert python == "python" and (REPOSITORY / script).is_file()
        name = script.removeprefix("tools/").removesuffix(".py")
        if name == "train":
            arguments += [*SMALL.split(), "MODEL.WEIGHTS", "none"]
        queries = iter(sorted((tmp_path / "datasets/demo/people/query").glob("*.jpg")) if number else [])
        arguments = [str(next(queries)) if word.startswith("QUERY_") else word for word in arguments]
        if "grouped/groups.csv" in arguments:
            correct(tmp_path / "grouped/groups.csv")
        assert run(name, arguments) == 0, capsys.readouterr().err
        printed[name] = capsys.readouterr().out
    assert "kept in people; search takes them" in printed["calibrate"]
    assert re.match(r"(same|different): cosine distance \d\.\d{4}\n", printed["verify"])
    assert "BCubed, precision" in printed["group"] and "drawn to test with" in printed["train"]
    found = json.loads((tmp_path / "found/matches.json").read_text())
    assert len(found["queries"]) == len(list((tmp_path / "datasets/demo/people/query").glob("*.jpg")))
    picture = cv2.imread(str(tmp_path / "found/matches.png"))
    assert picture.shape[0] > 1000 and np.ptp(picture) > 200
    assert json.loads((tmp_path / "grouped/groups.json").read_text())["groups"] == len(
        list((tmp_path / "grouped/sheets").glob("g*.png"))
    )
    assert load_dataset("csv", tmp_path / "grouped/groups.csv", split=0.3).protocol.camera_aware


@pytest.mark.parametrize("name", ["index", "search", "verify", "calibrate", "group"])
def test_each_command_says_what_it_takes(name, capsys):
    with pytest.raises(SystemExit):
        run(name, ["--help"])
    assert f"python tools/{name}.py" in capsys.readouterr().out
