"""Images in tars, as WebDataset lays them out: the members of a sample stand one after the other and share a key."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from reid_kit.errors import InputError
from reid_kit.gallery.table import column_name
from reid_kit.image_files import SUFFIXES
from reid_kit.reading import Member, parse_json, parsing, regular_file

TEXTS = {"cls": "identity", "txt": "txt", "json": ""}  # extensions of what is known of an image, and its column
TEXT_LIMIT = 2**20  # bytes of such a member


class Part(NamedTuple):
    """A member of a tar: the key of its sample, its extension, and where it lies; of one of TEXTS also its content."""

    key: str
    extension: str
    member: Member
    text: bytes | None


def read_samples(tar: str | Path, left_out: list[str]) -> Iterator[tuple[Member, list[Part]]]:
    """The image of each sample of a tar, and the texts beside it: one at a time, whatever the tar holds.

    The key of a member is its path up to the first dot of its name, what follows is its extension: that of an image,
    `json` with names and values, `cls` with the identity, or `txt`.

    Args:
        left_out: gets, at the end, what was not taken for a part of a sample with an image, in words.

    Raises:
        InputError: the tar is missing, compressed, damaged or truncated, or holds no image; a sample has two images.
    """
    found, others = 0, Counter[str]()
    for key, parts in groupby(_parts(tar), key=lambda part: part.key):
        image, texts = None, []
        for part in parts:
            if part.text is not None:
                texts.append(part)
            elif f".{part.extension}" not in SUFFIXES:
                others[part.extension or "no extension"] += 1
            elif image is not None:
                raise InputError(f"{tar}: the sample {key} has two images, {image.name} and {part.member.name}")
            else:
                image = part.member
        if image is not None:
            found += 1
            yield image, texts
        elif texts:
            others["texts without an image"] += 1
    if others:
        listed = ", ".join(f"{count:,} of {kind}" for kind, count in others.most_common(5))
        left_out.append(f"{others.total():,} members of {tar} are left out, as they are no images ({listed})")
    if not found:
        hint = f"; {left_out[-1]}" if others else ", it is empty"
        raise InputError(f"{tar} holds no image: no KEY.jpg or the like, where KEY has no dot{hint}")


def columns_of(texts: Iterable[Part]) -> dict[str, str]:
    """What the texts of a sample say, by the names of a table's columns.

    Raises:
        InputError: one is no text, or no JSON of names and values.
    """
    columns = {}
    for part in texts:
        with parsing(str(part.member), "text in UTF-8"):
            text = part.text.decode()
        if part.extension != "json":
            columns[TEXTS[part.extension]] = text.strip()
            continue
        values = parse_json(text, str(part.member))
        if not isinstance(values, dict):
            raise InputError(f'{part.member} must hold names and values, as {{"identity": "0002"}}')
        known = ((column_name(name), value) for name, value in values.items() if value is not None)
        columns |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in known}
    return columns


def _parts(tar: str | Path) -> Iterator[Part]:
    expected = "a tar that is whole and not compressed, as WebDataset reads it"
    with (
        parsing(f"the tar {tar}", expected, tarfile.TarError),
        open(regular_file(tar, f"the tar {tar}"), "rb") as file,
        tarfile.open(fileobj=file, mode="r:") as members,
    ):
        while (info := members.next()) is not None:
            members.members.clear()  # it would keep them all
            name = info.name.removeprefix("./")
            folder, _, base = name.rpartition("/")
            stem, _, extension = base.partition(".")
            extension = extension.lower()
            if info.isreg() and not info.issparse() and stem and not stem.startswith("__"):
                is_text = extension in TEXTS and info.size <= TEXT_LIMIT
                text = members.extractfile(info).read() if is_text else None
                member = Member(str(tar), name, info.offset_data, info.size)
                yield Part(f"{folder}/{stem}", extension, member, text)
        file.seek(members.offset)  # at a damaged header it stops as if that were the end, which is of zeros
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no member begins at byte {members.offset:,}")
