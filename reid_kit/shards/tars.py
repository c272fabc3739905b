"""Images in tars, as WebDataset lays them out: the members of a sample stand one after the other and share a key."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

from reid_kit.errors import InputError
from reid_kit.gallery.table import column_name
from reid_kit.image_files import SUFFIXES
from reid_kit.reading import Member, parse_json, parsing, regular_file

TEXTS = {"cls": "identity", "txt": "txt", "json": ""}  # extensions of what is known of an image, and its column
TEXT_LIMIT = 2**20  # bytes of such a member


class Part(NamedTuple):
    """A member of a tar: the key of its sample, its extension, where it lies, and its text where it is one of TEXTS."""

    key: str
    extension: str
    member: Member
    text: str | None


def read_samples(tar: str | Path, left_out: list[str]) -> Iterator[tuple[Member, dict[str, str]]]:
    """The image of each sample of a tar, and what is known of it by name: one at a time, whatever the tar holds.

    The key of a member is its path up to the first dot of its name, what follows is its extension: that of an image,
    `json` with names and values, `cls` with the identity, or `txt`.

    Args:
        left_out: gets, at the end, what was not taken for a part of a sample with an image, in words.

    Raises:
        InputError: the tar is missing, compressed, damaged or truncated, or holds no image; a sample has two images;
            its texts cannot be read.
    """
    found, others = 0, Counter[str]()
    for key, parts in groupby(_parts(tar), key=lambda part: part.key):
        image, columns = None, {}
        for part in parts:
            if part.text is not None:
                columns |= columns_of(part)
            elif f".{part.extension}" not in SUFFIXES:
                others[part.extension or "no extension"] += 1
            elif image is not None:
                raise InputError(f"{tar}: the sample {key} has two images, {image.name} and {part.member.name}")
            else:
                image = part.member
        if image is not None:
            found += 1
            yield image, columns
        elif columns:
            others["texts without an image"] += 1
    if others:
        listed = ", ".join(f"{count:,} of {kind}" for kind, count in others.most_common(5))
        left_out.append(f"{others.total():,} members of {tar} are left out, as they are no images ({listed})")
    if not found:
        hint = f"; {left_out[-1]}" if others else ", it is empty"
        raise InputError(f"{tar} holds no image: no KEY.jpg or the like, where KEY has no dot{hint}")


def columns_of(part: Part) -> dict[str, str]:
    if part.extension != "json":
        return {TEXTS[part.extension]: part.text.strip()}
    values = parse_json(part.text, str(part.member))
    if not isinstance(values, dict):
        raise InputError(f'{part.member} must hold names and values, as {{"identity": "0002"}}')
    known = ((name, v) for name, v in values.items() if v is not None)
    return {column_name(name): v if isinstance(v, str) else json.dumps(v) for name, v in known}


def _parts(tar: str | Path) -> Iterator[Part]:
    expected = "a tar that is whole and not compressed, as WebDataset reads it"
    with (
        parsing(f"the tar {tar}", expected, tarfile.TarError),
        open(regular_file(tar, f"the tar {tar}"), "rb") as file,
        tarfile.open(fileobj=file, mode="r:") as members,
    ):
        while (info := members.next()) is not None:
            members.members.clear()  # it would keep them all
            folder, _, name = info.name.removeprefix("./").rpartition("/")
            stem, _, extension = name.partition(".")
            if info.isreg() and not info.issparse() and stem and not stem.startswith("__"):
                extension = extension.lower()
                text = _text(members.extractfile(info), info) if extension in TEXTS else None
                member = Member(str(tar), info.name, info.offset_data, info.size)
                yield Part(f"{folder}/{stem}", extension, member, text)
        file.seek(members.offset)  # at a damaged header it stops as if that were the end, which is of zeros
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no member begins at byte {members.offset:,}")


def _text(file: IO[bytes], info: tarfile.TarInfo) -> str:
    if info.size > TEXT_LIMIT:
        raise ValueError(f"{info.name} has {info.size:,} bytes, at most {TEXT_LIMIT:,} were expected")
    return file.read().decode()
