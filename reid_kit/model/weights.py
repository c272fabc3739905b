"""Pre-trained weights of a backbone, from a local file."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reid_kit.errors import InputError

PREFIXES = ("module.", "backbone.", "model.", "net.")
CLASSIFIERS = ("classifier.", "fc.", "head.fc.", "head.weight", "head.bias", "last_linear.")


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Loads a .safetensors, .pth or .pt file; a classifier in it is left out, prefixes as wrappers add are taken off.

    Raises:
        InputError: the file is missing, is no such file, or does not fit the network; the message names the keys.
    """
    state = strip(read_state(Path(path)))
    wanted = network.state_dict()
    extra = [key for key in state if key not in wanted and not key.startswith(CLASSIFIERS)]
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    shapes = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or extra or shapes:
        what = {"missing": missing, "not known to the backbone": extra, "of another shape": shapes}
        listed = "; ".join(f"{len(keys)} {kind}, as {keys[0]}" for kind, keys in what.items() if keys)
        raise InputError(f"MODEL.WEIGHTS {path} does not fit this backbone: {listed}. Is MODEL.BACKBONE the right one?")
    network.load_state_dict({key: state.get(key, value) for key, value in wanted.items()})


def read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"MODEL.WEIGHTS {path}: no such file. Give imagenet, none, or the path of a local file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # the two formats raise many kinds; the file is at fault in each
        raise InputError(f"MODEL.WEIGHTS {path} cannot be read as weights: {error}") from error
    for key in ("state_dict", "model", "state"):
        if isinstance(state.get(key), dict):
            state = state[key]
    return state


def strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
