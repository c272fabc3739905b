"""Datasets by name, and how a dataset's folder is found."""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reid_kit.data.records import RetrievalDataset
from reid_kit.errors import InputError, printable, shortened, unknown_name


@dataclass(frozen=True)
class Counts:
    """Images and identities of each split as the authors give them, and cameras; None: any."""

    train: tuple[int, int] | None = None
    query: tuple[int, int] | None = None
    gallery: tuple[int, int] | None = None
    cameras: int | None = None


@dataclass(frozen=True)
class Reader:
    """A dataset: how it is read, what its folder is called and holds, where it comes from, its official counts."""

    name: str
    read: Callable[..., RetrievalDataset]
    folders: tuple[str, ...]
    markers: tuple[str, ...]
    source: str
    counts: Callable[..., Counts]


READERS: dict[str, Reader] = {}


def register(
    name: str,
    *,
    folders: tuple[str, ...] = (),
    markers: tuple[str, ...],
    source: str = "",
    counts: Counts | Callable[..., Counts] = Counts(),
) -> Callable:
    """Function decorator: `read(folder, **options)` becomes reachable as `load_dataset(name, root, **options)`.

    Args:
        folders: what the dataset's own folder may be called under `root`.
        markers: what the folder holds at least one of, if it is the dataset's.
        source: where to get it, for the error. counts: official counts, or a function of the options.
    """

    def add(read: Callable[..., RetrievalDataset]) -> Callable[..., RetrievalDataset]:
        READERS[name] = Reader(name, read, folders, markers, source, counts if callable(counts) else lambda **_: counts)
        return read

    return add


def load_dataset(name: str, root: str | Path, **options) -> RetrievalDataset:
    """Reads a dataset's train, query and gallery records.

    Args:
        name: a key of READERS. root: the dataset's own folder, or its parent.
        options: what the reader takes, as `boxes="labeled"` for cuhk03_np.

    Raises:
        InputError: an unknown name or option; a folder that is missing, empty or of another layout; a file name or a
            list that does not parse. The message names the place, what was expected, and where to get it.
    """
    reader = find_reader(name)
    options = checked_options(name, options)
    root = Path(os.path.expanduser(root))
    if "\0" in str(root):
        raise InputError(f"no folder can be called {str(root)!r}: it holds a zero byte")
    try:
        bare = name == "folder" and options.get("split")  # of identities, without train/ that it could be known by
        return reader.read(root if bare else find_folder(reader, root), **options)
    except OSError as error:
        place = shortened(printable(str(error.filename or root)))[1:-1]
        raise InputError(f"cannot read {place} of dataset {name!r}: {error.strerror or error}") from error


def checked_options(name: str, options: Mapping) -> dict[str, object]:
    """The options of a dataset's reader.

    Raises:
        InputError: one that the reader does not take, or of another type than its default.
    """
    taken = inspect.signature(find_reader(name).read).parameters
    for option, value in options.items():
        if option not in list(taken)[1:]:
            raise unknown_name(f"option of dataset {name!r}:", option, list(taken)[1:])
        default = taken[option].default
        if default not in (None, inspect.Parameter.empty) and type(value) is not type(default):
            kind = type(default).__name__
            raise InputError(f"option {option} of dataset {name!r} must be {kind}, as {default!r}, got {value!r:.60}")
    return dict(options)


def find_reader(name: str) -> Reader:
    if not isinstance(name, str) or name not in READERS:
        raise unknown_name("dataset", name, READERS)
    return READERS[name]


def find_folder(reader: Reader, root: Path) -> Path:
    """`root` itself or the dataset's folder in it, whichever holds a marker; a table may be given itself."""
    if root.is_file() and root.suffix == Path(reader.markers[0]).suffix:
        return root
    named = [root / folder for folder in reader.folders]
    if not named and root.is_dir():  # your own images have any name
        named = sorted(path for path in root.iterdir() if path.is_dir())
    named += [folder / folder.name for folder in (root, *named)]  # an archive unpacked into a folder of its own name
    found = [path for path in (root, *named) if any((path / marker).exists() for marker in reader.markers)]
    if len(found) > 1 and not reader.folders and found[0] != root:
        raise InputError(f"{root} holds several datasets for {reader.name}: {', '.join(map(str, found))}; give one")
    if found:
        return found[0]
    if root.is_dir() and root.resolve().name in ("bounding_box_train", "bounding_box_test", "query", *reader.markers):
        raise InputError(f"{root} is one level too deep for {reader.name}; give its parent, {root.parent}")
    where = root / reader.folders[0] if reader.folders else root
    state = "does not exist" if not root.exists() else "does not hold it"
    raise InputError(
        f"no {reader.name} in {root}, which {state}: expected {where / reader.markers[0]}. {reader.source} "
        f"Then give the folder with DATA.ROOT or --root"
    )
