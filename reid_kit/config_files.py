"""The configs that come with the toolkit, found by name: in a clone and in an installed package."""

import difflib
from contextlib import suppress
from pathlib import Path

from reid_kit.errors import InputError, printable, shortened

CONFIGS = Path(__file__).with_name("configs")  # a link to the clone's configs/, a folder in an installed package
if not CONFIGS.is_dir():  # a clone on a system without links
    CONFIGS = Path(__file__).parents[1] / "configs"


def find_config(name: str | Path) -> Path:
    """`name` itself if it is a file, else the toolkit's config of that name: `market_srt` is configs/market_srt.yaml.

    Raises:
        InputError: there is neither; it gives the nearest name.
    """
    path = Path(name)
    with suppress(OSError, ValueError):  # what no file can be called
        if path.is_file():
            return path
    own = {file.stem: file for file in CONFIGS.rglob("*.yaml") if file.parent.name != "base"}
    stem = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if stem in own and path.parent == Path():
        return own[stem]
    near = [stem] if stem in own else difflib.get_close_matches(stem, own, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise InputError(
        f"no config file {shortened(printable(str(name)))[1:-1]}.{hint} The ones that come with the "
        f"toolkit, {len(own)} in {CONFIGS}, are found by their names, as market_srt"
    )
