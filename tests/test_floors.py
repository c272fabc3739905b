"""Imports run downward only: a room knows the rooms beneath it and none beside or above."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "reid_kit"
GROUND = {"errors", "reading", "files", "image", "image_files", "device", "precision", "distributed", "operating_point"}
BENEATH = {  # room -> what it may import beside itself
    **dict.fromkeys(GROUND, GROUND),
    "data": GROUND,
    "model": GROUND,
    "losses": GROUND,
    "evaluation": GROUND,
    "training": GROUND | {"losses"},
    "report": GROUND | {"evaluation"},
    "export": GROUND | {"model"},
    "gallery": GROUND | {"model", "evaluation"},
    "web": GROUND | {"gallery"},
    "inference": GROUND | {"data", "model", "evaluation", "report"},
    "shards": GROUND | {"data", "model", "evaluation", "gallery", "inference"},
}


def imported(file: Path) -> set[str]:
    """The rooms of reid_kit that a file imports, within its functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("reid_kit.")}


@pytest.mark.parametrize("room", sorted(BENEATH))
def test_imports_run_downward(room):
    place = HOUSE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files and all(file.is_file() for file in files)
    wrong = {
        str(file.relative_to(HOUSE)): sorted(above)
        for file in files
        if (above := imported(file) - BENEATH[room] - {room})
    }
    assert not wrong
