"""Parts of a feature map, each with a head of its own beside the whole map's."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid_kit.errors import InputError, unknown_name
from reid_kit.model.pooling import OF_TOKENS

KINDS = ("stripes", "channels")
OPTIONS = (*KINDS, "whole", "pooling", "embedding_size")


@dataclass(frozen=True)
class Part:
    """A piece of a map: number `number` of `count` horizontal stripes or channel groups; `count` 1 is the whole.

    entry: its place in MODEL.PARTS. pooling, embedding_size: of its head; None: the model's.
    """

    name: str
    entry: int
    kind: str = "stripes"
    count: int = 1
    number: int = 0
    pooling: str | None = None
    embedding_size: int | None = None

    def cut(self, maps: Tensor) -> Tensor:
        """The part's piece of (B, C, h, w)."""
        return maps.chunk(self.count, dim=2 if self.kind == "stripes" else 1)[self.number]


def build_parts(entries: Sequence[Mapping], channels: int, height: int) -> list[Part]:
    """The parts that MODEL.PARTS asks of a map of `channels` and of `height` rows.

    Each entry is {stripes: n} (PCB, Sun et al. 2018; MGN, Wang et al. 2018) or {channels: n} (LightMBN, Herzog et al.
    2021), and may ask for the `whole` map beside its pieces, another `pooling` and another `embedding_size`.
    The parts of {stripes: 2, whole: true} are stripes2.whole, stripes2.1 (the upper) and stripes2.2.

    Raises:
        InputError: an entry that is none of these, comes twice, or does not divide the map.
    """
    parts: list[Part] = []
    for place, entry in enumerate(entries):
        kind, count = check_entry(place, entry, entries[:place])
        size, what = (height, "rows") if kind == "stripes" else (channels, "channels")
        if size % count:
            fits = [n for n in range(2, min(size, 17)) if size % n == 0]
            hint = "a larger DATA.HEIGHT or MODEL.LAST_STRIDE 1 gives more rows; " if kind == "stripes" else ""
            raise InputError(
                f"MODEL.PARTS[{place}]: {count} {kind} do not divide the {size} {what} of this backbone's map; {hint}"
                f"here {', '.join(map(str, fits)) or 'none'} would"
            )
        options = {"entry": place, "pooling": entry.get("pooling"), "embedding_size": entry.get("embedding_size")}
        name = f"{kind}{count}"
        if entry.get("whole", False):
            parts.append(Part(f"{name}.whole", **options))
        parts += [Part(f"{name}.{n + 1}", kind=kind, count=count, number=n, **options) for n in range(count)]
    return parts


def check_entry(place: int, entry: object, before: Sequence[Mapping]) -> tuple[str, int]:
    """Kind and count of an entry of MODEL.PARTS."""
    kinds = [kind for kind in KINDS if isinstance(entry, Mapping) and kind in entry]
    if len(kinds) != 1:
        raise InputError(f"MODEL.PARTS[{place}] must be like {{stripes: 2}} or {{channels: 2}}, got {entry!r}")
    for option in entry:
        if option not in OPTIONS:
            raise unknown_name(f"option of MODEL.PARTS[{place}]:", option, OPTIONS)
    kind, count, size = kinds[0], entry[kinds[0]], entry.get("embedding_size", 0)
    if type(count) is not int or count < 2 or type(size) is not int or size < 0:
        raise InputError(
            f"MODEL.PARTS[{place}]: {kind} must be a whole number of at least 2 and embedding_size one of at least 0, "
            f"got {entry!r}"
        )
    if entry.get("pooling") in OF_TOKENS:
        raise InputError(f"MODEL.PARTS[{place}]: a part has no class token; its pooling is average, max or gem")
    if type(entry.get("whole", False)) is not bool:
        raise InputError(f"MODEL.PARTS[{place}]: whole must be true or false, got {entry['whole']!r}")
    if any(other.get(kind) == count for other in before):
        raise InputError(f"MODEL.PARTS gives {kind}: {count} twice")
    return kind, count


class Copies(nn.Module):
    """Copies of a stage that see the same input; their outputs stand one after another along the batch.

    What follows the stage, as a last norm, is shared, and need not know of the copies.
    """

    def __init__(self, stage: nn.Module, count: int):
        super().__init__()
        self.stages = nn.ModuleList([stage, *(copy.deepcopy(stage) for _ in range(count - 1))])

    def forward(self, *inputs, **options) -> Tensor:
        return torch.cat([stage(*inputs, **options) for stage in self.stages])


def copy_last_stage(network: nn.Module, name: str, count: int) -> None:
    """Puts `count` copies in the place of a timm network's last stage.

    Raises:
        InputError: the network does not say which module that is.
    """
    path = network.feature_info[-1]["module"] if hasattr(network, "feature_info") else ""
    try:
        stage = network.get_submodule(path)
    except AttributeError:
        stage = network
    if stage is network:
        raise InputError(f"MODEL.OWN_STAGE is not possible for {name}: its last stage is no module of its own")
    network.set_submodule(path, Copies(stage, count))
