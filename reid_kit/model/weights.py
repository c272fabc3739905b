"""Pre-trained weights of a backbone, from a local file."""

import math
import re
import sys
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from reid_kit.errors import InputError, shortened
from reid_kit.reading import PARSER_ERRORS, is_file, regular_file

CLASSIFIERS = ("classifier.", "fc.", "head.fc.", "head.weight", "head.bias", "head_dist.", "aux_head.", "last_linear.")
HEADS = "heads."  # what an Embedder's state calls all that stands behind the backbone


def auxiliary(network: nn.Module) -> tuple[str, ...]:
    """How the names of blocks begin that many files of a network's weights lack."""
    return getattr(network, "auxiliary", ())


class Loaded(NamedTuple):
    """anew: names that keep their random weights. heads: the weights of a checkpoint's heads. said: what was taken."""

    anew: list[str]
    heads: dict[str, Tensor] | None
    said: str


def load_weights(network: nn.Module, path: str | Path) -> Loaded:
    """Loads a .safetensors, .pth or .pt file as the field publishes them, or the backbone of our own checkpoint.

    Plain state dicts; those of DINO and iBOT (`teacher` and `student`), MoCo (`encoder_q`), torchreid, fast-reid,
    reid-strong-baseline, TransReID and its descendants, and the visual tower of CLIP: prefixes that wrappers add are
    taken off, heads of other tasks are left out, and position embeddings are resampled to the network's image size.
    Auxiliary blocks keep their random weights where the file has none of them, with a warning.

    Raises:
        InputError: the file is missing, is no such file, or does not fit the network; the message names the keys.
    """
    wanted = network.state_dict()
    place, content = best_of(read_states(Path(path)), wanted)
    whole = familiar(content)
    prefix, state = strip(whole, wanted)
    visual = any(key.startswith("visual.") for key in state)  # of CLIP, whose text stands beside it
    left = [key for key in whole if not key.startswith("visual." if visual else prefix)]
    state = converted(state, network)
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    anew = [key for key in missing if key.startswith(auxiliary(network))]
    missing = [key for key in missing if key not in anew]
    blocks = {key.split(".")[0] for key in wanted}  # a deeper network's blocks are no head of another task
    others = [key for key in state if key not in wanted and not key.startswith((*CLASSIFIERS, *auxiliary(network)))]
    extra = [key for key in others if key.split(".")[0] in blocks]
    shapes = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or extra or shapes:
        what = {"missing": missing, "not known to the backbone": extra, "of another shape": shapes}
        listed = "; ".join(f"{len(keys)} {kind}, as {shortened(keys[0])[1:-1]}" for kind, keys in what.items() if keys)
        if shapes:
            listed += f" ({tuple(state[shapes[0]].shape)} there, {tuple(wanted[shapes[0]].shape)} here)"
        raise InputError(f"MODEL.WEIGHTS {path} does not fit this backbone: {listed}. Is MODEL.BACKBONE the right one?")
    check_finite(state, f"MODEL.WEIGHTS {path}")
    network.load_state_dict({key: state.get(key, value) for key, value in wanted.items()})
    if anew:
        warnings.warn(
            f"MODEL.WEIGHTS {path} holds no {anew[0]} and {len(anew) - 1} more; they begin anew", stacklevel=2
        )
    left += [key for key in state if key not in wanted]
    where = "".join(f", of {name!r}" for name in (place, prefix) if name)
    taken = sum(key in state for key in wanted)
    said = f"MODEL.WEIGHTS {path}: {taken} tensors taken{where}; left out {len(left)}{described(left)}"
    if not any(key.startswith("backbone.network.") for key in whole):
        return Loaded(anew, None, said)
    return Loaded(anew, {key.removeprefix(HEADS): value for key, value in whole.items() if key.startswith(HEADS)}, said)


def load_heads(heads: nn.Module, state: dict[str, Tensor], path: str) -> None:
    """Loads what a checkpoint has behind its backbone, as far as it fits, and warns of what begins anew."""
    own = heads.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    check_finite(fitting, f"MODEL.WEIGHTS {path}")
    heads.load_state_dict({**own, **fitting})
    anew = [key for key in own if key not in fitting]
    if anew:
        warnings.warn(
            f"MODEL.WEIGHTS {path} gives the backbone; behind it begin anew, as the checkpoint has none of their "
            f"shape: {', '.join(anew)}",
            stacklevel=2,
        )


def check_finite(state: dict[str, Tensor], name: str) -> None:
    """Raises InputError for weights that are NaN or infinite."""
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{name}: {key} holds NaN or infinity; take weights from before a run went wrong")


def described(keys: list[str]) -> str:
    """The beginnings of names, for a message."""
    starts = list(dict.fromkeys(key.split(".")[0] for key in keys))
    return f" ({', '.join(starts[:5])}{', ...' if len(starts) > 5 else ''})" if starts else ""


def read_states(path: Path) -> dict[str, dict[str, Tensor]]:
    """The named tensors of a file, and of each of the dicts that it holds, by the place where they were found.

    Raises:
        InputError: the file is missing, or holds no named tensors.
    """
    if not is_file(path):
        raise InputError(f"MODEL.WEIGHTS {path}: no such file. Give imagenet, none, or the path of a local file")
    content = read_tensors(path, f"MODEL.WEIGHTS {path}")
    found = dict(states_in(content))
    if not found:
        raise InputError(f"MODEL.WEIGHTS {path} holds no named tensors; a state dict of the backbone was expected")
    return found


def states_in(content: object, place: str = "", depth: int = 2) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(place, named tensors) of a dict and of the dicts in it."""
    if not isinstance(content, Mapping):
        return
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if state:
        yield place, state
    for key, value in content.items():
        if depth:
            yield from states_in(value, f"{place}.{key}" if place else str(key), depth - 1)


def best_of(states: dict[str, dict[str, Tensor]], wanted: Collection[str]) -> tuple[str, dict[str, Tensor]]:
    """The state that holds most of the wanted names; of equals the averaged teacher, or the first."""

    def worth(place: str) -> tuple[int, bool]:
        state = strip(familiar(states[place]), wanted)[1]
        return sum(key in state for key in wanted), "teacher" in place

    place = max(states, key=worth)
    return place, states[place]


def read_tensors(path: Path, name: str) -> object:
    """What a .safetensors file or one of `torch.save` holds, on the CPU; code in it is not run.

    Raises:
        InputError: the file, called `name`, is truncated, damaged, of another kind, or holds code.
    """
    path = regular_file(path, name)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:  # torch does not look at its sums
                damaged = packed.testzip()
            if damaged:
                raise InputError(f"{name} is damaged: {damaged} in it does not agree with its check sum; copy it again")
        return torch.load(path, "cpu", weights_only=True)
    except InputError:
        raise
    except (*PARSER_ERRORS, SafetensorError) as error:
        code = re.search(r"(?i)unsupported (?:global: )?GLOBAL (\S+)", str(error))
        why = (
            "it is a TorchScript archive, as OpenAI's CLIP is, whose code is not run; save its state_dict() alone"
            if "TorchScript" in str(error)
            else f"it asks for Python's {code[1]}, and code in files is not run; save the tensors alone"
            if code
            else "it is truncated, or another kind of file"
        )
        raise InputError(f"{name} ({path.stat().st_size} bytes) cannot be read: {why}") from error


def strip(state: dict[str, Tensor], wanted: Collection[str]) -> tuple[str, dict[str, Tensor]]:
    """The prefix ("", "module.", "base.") that holds most of the wanted names, and the part of `state` under it.

    Of equals the shortest, and the one that is trained by gradients: MoCo's encoder_q and base_encoder.
    """
    starts = {""} | {".".join(key.split(".")[:n]) + "." for key in state for n in (1, 2, 3)}
    copies = ("encoder_k", "momentum", "target", "student")
    ordered = sorted(starts, key=lambda start: (any(word in start for word in copies), len(start), start))
    best = max(ordered, key=lambda start: sum(start + key in state for key in wanted))
    return best, {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}


def familiar(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the names of systems that keep parts of a network elsewhere put where timm has them.

    CLIP-ReID calls CLIP's visual tower image_encoder. TransReID with its jigsaw branch trains a copy of the last block
    and norm, b1, and leaves those of `base` as they began.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    visual = {key: f"visual.{key.split('image_encoder.')[1]}" for key in state if "image_encoder." in key}
    state = {visual.get(key, key): value for key, value in state.items()}
    blocks = [int(found[1]) for key in state if (found := re.search(r"base\.blocks\.(\d+)\.", key))]
    if blocks and any(key.endswith("b1.0.norm1.weight") for key in state):
        homes = {"b1.0.": f"base.blocks.{max(blocks)}.", "b1.1.": "base.norm."}
        for key in list(state):
            for copy, home in homes.items():
                if copy in key:
                    state[key.replace(copy, home)] = state[key]
    return state


def converted(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state in timm's form, as the network's own module knows to make it of the forms that it is published in.

    timm takes a grid of position embeddings for a square one; the grids of people are taller, and are resampled here.
    """
    for key in ("pos_embed", "visual.positional_embedding"):
        if key in state and state[key].ndim in (2, 3):
            state = {**state, key: resampled_positions(state[key], network)}
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if not convert:
        return state
    try:
        return convert(dict(state), network)
    except (RuntimeError, LookupError, AttributeError, TypeError, ValueError):
        return state  # of another architecture, whose names the caller reports


def resampled_positions(positions: Tensor, network: nn.Module) -> Tensor:
    """(..., prefix + h w, C) position embeddings for the network's grid, of that grid's shape where they can be."""
    own = getattr(network, "pos_embed", None)
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if own is None or grid is None or positions.shape[-1] != own.shape[-1]:
        return positions
    prefix = own.shape[-2] - grid[0] * grid[1]
    cells = max(positions.shape[-2] - prefix, 1)
    side = math.isqrt(cells)
    if side**2 == cells:
        old = (side, side)
    else:
        shapes = [(n, cells // n) for n in range(1, cells + 1) if cells % n == 0 and 1 / 8 <= n * n / cells <= 8]
        if not shapes:
            return positions  # no grid of images: tokens of another kind are among them
        old = min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1] * grid[1] / grid[0])))
    if old == tuple(grid):
        return positions
    made = resample_abs_pos_embed(
        positions.reshape(1, *positions.shape[-2:]), list(grid), list(old), num_prefix_tokens=prefix
    )
    return made.reshape(*positions.shape[:-2], *made.shape[-2:])
