"""Pre-trained weights of a backbone, from a local file."""

import re
import struct
import sys
import warnings
from collections.abc import Collection
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reid_kit.errors import InputError

CLASSIFIERS = ("classifier.", "fc.", "head.fc.", "head.weight", "head.bias", "head_dist.", "aux_head.", "last_linear.")
DAMAGED = (  # what reading files with random bytes in them raises
    UnpicklingError,
    SafetensorError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
)


def auxiliary(network: nn.Module) -> tuple[str, ...]:
    """How the names of blocks begin that many files of a network's weights lack."""
    return getattr(network, "auxiliary", ())


def load_weights(network: nn.Module, path: str | Path) -> list[str]:
    """Loads a .safetensors, .pth or .pt file, or the backbone of a checkpoint of this toolkit.

    Prefixes that wrappers add are taken off and a classifier is left out; position embeddings of a transformer are
    resampled to the network's image size, as timm does it. Auxiliary blocks keep their random weights where the file
    has none of them, with a warning.

    Returns:
        The names that keep their random weights.

    Raises:
        InputError: the file is missing, is no such file, or does not fit the network; the message names the keys.
    """
    wanted = network.state_dict()
    state = strip(read_state(Path(path)), wanted)
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    anew = [key for key in missing if key.startswith(auxiliary(network))]
    missing = [key for key in missing if key not in anew]
    resample = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if resample and not missing:
        state = resample(state, network)
    extra = [key for key in state if key not in wanted and not key.startswith((*CLASSIFIERS, *auxiliary(network)))]
    shapes = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or extra or shapes:
        what = {"missing": missing, "not known to the backbone": extra, "of another shape": shapes}
        listed = "; ".join(f"{len(keys)} {kind}, as {keys[0]}" for kind, keys in what.items() if keys)
        raise InputError(f"MODEL.WEIGHTS {path} does not fit this backbone: {listed}. Is MODEL.BACKBONE the right one?")
    network.load_state_dict({key: state.get(key, value) for key, value in wanted.items()})
    if anew:
        warnings.warn(
            f"MODEL.WEIGHTS {path} holds no {anew[0]} and {len(anew) - 1} more; they begin anew", stacklevel=2
        )
    return anew


def read_state(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file, without what else it holds.

    Raises:
        InputError: the file is missing, or holds no named tensors.
    """
    if not path.is_file():
        raise InputError(f"MODEL.WEIGHTS {path}: no such file. Give imagenet, none, or the path of a local file")
    content = read_tensors(path, f"MODEL.WEIGHTS {path}")
    if isinstance(content, dict):
        nested = [content[key] for key in ("state_dict", "model", "state") if isinstance(content.get(key), dict)]
        content = (nested or [content])[0]
        state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if state:
            return state
    raise InputError(f"MODEL.WEIGHTS {path} holds no named tensors; a state dict of the backbone was expected")


def read_tensors(path: Path, name: str) -> object:
    """What a .safetensors file or one of `torch.save` holds, on the CPU; code in it is not run.

    Raises:
        InputError: the file, called `name`, is truncated, of another kind, or holds code.
    """
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except DAMAGED as error:
        code = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = (
            f"it asks for Python's {code[1]}, and code in files is not run; save the tensors alone"
            if code
            else "it is truncated, or another kind of file"
        )
        raise InputError(f"{name} ({path.stat().st_size} bytes) cannot be read: {why}") from error


def strip(state: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The part of `state` under the prefix ("", "module.", "backbone.") that holds most of the wanted names."""
    starts = {""} | {".".join(key.split(".")[:n]) + "." for key in state for n in (1, 2, 3)}
    best = max(sorted(starts, key=len), key=lambda start: sum(start + key in state for key in wanted))
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}
