"""Pre-trained weights of a backbone, from a local file."""

import re
import sys
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reid_kit.errors import InputError, shortened
from reid_kit.reading import PARSER_ERRORS, is_file, parsing, regular_file

CLASSIFIERS = ("classifier.", "fc.", "head.fc.", "head.weight", "head.bias", "head_dist.", "aux_head.", "last_linear.")
HEADS = "heads."  # what an Embedder's state calls all that stands behind the backbone


def auxiliary(network: nn.Module) -> tuple[str, ...]:
    """How the names of blocks begin that many files of a network's weights lack."""
    return getattr(network, "auxiliary", ())


def load_weights(network: nn.Module, path: str | Path) -> tuple[list[str], dict[str, Tensor] | None]:
    """Loads a .safetensors, .pth or .pt file, or the backbone of a checkpoint of this toolkit.

    Prefixes that wrappers add are taken off and a classifier is left out; position embeddings of a transformer are
    resampled to the network's image size, as timm does it. Auxiliary blocks keep their random weights where the file
    has none of them, with a warning.

    Returns:
        The names that keep their random weights; and, of a checkpoint of this toolkit, the weights of its heads.

    Raises:
        InputError: the file is missing, is no such file, or does not fit the network; the message names the keys.
    """
    wanted = network.state_dict()
    whole = read_state(Path(path))
    state = strip(whole, wanted)
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    anew = [key for key in missing if key.startswith(auxiliary(network))]
    missing = [key for key in missing if key not in anew]
    resample = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if resample and not missing:
        with parsing(f"MODEL.WEIGHTS {path}", "the weights of this backbone"):
            state = resample(state, network)
    extra = [key for key in state if key not in wanted and not key.startswith((*CLASSIFIERS, *auxiliary(network)))]
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
    if not any(key.startswith("backbone.network.") for key in whole):
        return anew, None
    return anew, {key.removeprefix(HEADS): value for key, value in whole.items() if key.startswith(HEADS)}


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


def read_state(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file, without what else it holds.

    Raises:
        InputError: the file is missing, or holds no named tensors.
    """
    if not is_file(path):
        raise InputError(f"MODEL.WEIGHTS {path}: no such file. Give imagenet, none, or the path of a local file")
    content = read_tensors(path, f"MODEL.WEIGHTS {path}")
    if isinstance(content, dict):
        nested = [content[key] for key in ("state_dict", "model", "state") if isinstance(content.get(key), dict)]
        content = (nested or [content])[0]
        state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if state:
            return state
    raise InputError(f"MODEL.WEIGHTS {path} holds no named tensors; a state dict of the backbone was expected")


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
