"""The demo data that the project renders itself."""

from pathlib import Path

from reid_kit.data.readers.market import read_market
from reid_kit.data.readers.registry import register
from reid_kit.data.records import RetrievalDataset

SOURCE = "Render it: python tools/make_demo.py."


@register("demo", folders=("demo",), markers=("people",), source=SOURCE)
def demo(folder: Path) -> RetrievalDataset:
    """Rendered pedestrians before six cameras, in Market-1501's layout, with distractors (0) and junk (-1)."""
    return read_market("demo", folder / "people")
