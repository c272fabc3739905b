"""The demo data that the project renders itself."""

from pathlib import Path

from reid_kit.data.readers.deepfashion import read_consumer_to_shop, read_in_shop
from reid_kit.data.readers.market import read_market
from reid_kit.data.readers.registry import register
from reid_kit.data.records import RetrievalDataset

SOURCE = "Render it: python tools/make_demo.py."


@register("demo", folders=("demo",), markers=("people",), source=SOURCE)
def demo(folder: Path) -> RetrievalDataset:
    """Rendered pedestrians before six cameras, in Market-1501's layout, with distractors (0) and junk (-1)."""
    return read_market("demo", folder / "people")


@register("demo_inshop", folders=("demo",), markers=("garments/in-shop",), source=SOURCE)
def demo_inshop(folder: Path) -> RetrievalDataset:
    """Rendered garments in the layout of DeepFashion's in-shop set, with boxes."""
    return read_in_shop("demo_inshop", folder / "garments/in-shop")


@register("demo_consumer_to_shop", folders=("demo",), markers=("garments/consumer-to-shop",), source=SOURCE)
def demo_consumer_to_shop(folder: Path) -> RetrievalDataset:
    """Rendered garments in the layout of DeepFashion's consumer-to-shop set, with boxes."""
    return read_consumer_to_shop("demo_consumer_to_shop", folder / "garments/consumer-to-shop")
