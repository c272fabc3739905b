"""A model as a folder to share: config.json, weights.safetensors and a README.md card; nothing in it is code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
import yaml
from torch import nn

from reid_kit.errors import InputError
from reid_kit.files import write_atomically
from reid_kit.model.card import card
from reid_kit.model.fingerprint import fingerprint
from reid_kit.model.weights import check_finite, read_tensors
from reid_kit.reading import is_file, parsing

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "weights.safetensors", "README.md"
HUB = "hf:/"  # and one slash more, which pathlib takes away
HUB_TIMEOUT = 10  # seconds that the hub has to say which files it has


def describe(model: nn.Module, keep_data_root: bool = False) -> dict:
    """All that is known of a model but its weights, as it goes into JSON.

    It is the content of a checkpoint without its tensors and labels; `config` is a tree here, and paths of the machine
    that trained the model are left out of it, or all but where the data lay.
    """
    facts = dict(model.facts)
    config = yaml.safe_load(facts.pop("config", "")) or {}
    return {
        "format": FORMAT,
        "model_name": model.arguments["backbone"],
        "embedding_size": model.embedding_size,
        "level_sizes": list(model.level_sizes),
        "fingerprint": fingerprint(model),
        "embedder": model.arguments,
        **facts,
        "thresholds": [asdict(point) for point in model.thresholds],
        "config": without_paths(config) | ({"DATA": config["DATA"]} if keep_data_root and "DATA" in config else {}),
    }


def without_paths(tree: object) -> object:
    """The tree less its absolute paths: they say nothing elsewhere, and tell of the machine they come from."""
    if isinstance(tree, Mapping):
        return {key: without_paths(value) for key, value in tree.items() if not is_path(value)}
    return [without_paths(value) for value in tree if not is_path(value)] if isinstance(tree, list) else tree


def is_path(value: object) -> bool:
    return isinstance(value, str) and (value.startswith(("/", "~", "\\")) or value[1:3] in (":\\", ":/"))


def content_of(description: Mapping) -> dict:
    """What `describe` gave, as the content of a checkpoint that has no weights."""
    points = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in point.items()}
        for point in description.get("thresholds", ())
    ]
    config = yaml.safe_dump(description.get("config") or {})
    return {"labels": {}, "training": None, **description, "thresholds": points, "config": config}


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Writes config.json, weights.safetensors and README.md to a folder, config.json last.

    Raises:
        InputError: one of the files is there already; the folder cannot be written.
    """
    folder = Path(folder)
    taken = [name for name in (CONFIG, WEIGHTS, CARD) if (folder / name).exists()]
    if taken or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} holds {taken[0]} already" if taken else f"{folder} is a file; give a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
    description = describe(model)
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    write_atomically(folder / WEIGHTS, safetensors.torch.save(state, {"format": "pt"}))
    write_atomically(folder / CARD, card(description))
    write_atomically(folder / CONFIG, json.dumps(description, indent=1) + "\n")


def read_folder(folder: str | Path) -> dict:
    """The content of a checkpoint, from a folder that `save_pretrained` wrote.

    Raises:
        InputError: a file is missing, damaged, of another kind or of a later format.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not is_file(folder / name):
            raise InputError(
                f"{folder} is no model to load: it has no {name}, as model.save_pretrained writes it; of a run folder "
                f"give best.pt"
            )
    file = folder / CONFIG
    with parsing(str(file), "what model.save_pretrained writes"):
        description = json.loads(file.read_text())
        content = content_of(description)
        content["embedder"] = {**description["embedder"], "weights": "none"}  # nothing but the folder is read
    if description.get("format") != FORMAT:
        raise InputError(f"{file} has format {description.get('format')}, this version reads {FORMAT}; update reid_kit")
    state = read_tensors(folder / WEIGHTS, f"weights {folder / WEIGHTS}")
    check_finite(state, f"weights {folder / WEIGHTS}")
    return {**content, "state": state}


def from_hub(address: str) -> Path:
    """The folder of `hf://organisation/name`, or `hf://organisation/name@revision`, as the library keeps it.

    Raises:
        InputError: no library, no network, no such model.
    """
    name, _, revision = address.removeprefix(HUB).strip("/").partition("@")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(f"{address} needs a library: pip install huggingface_hub") from error
    try:
        files = [CONFIG, WEIGHTS, CARD]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=files, etag_timeout=HUB_TIMEOUT))
    except (OSError, ValueError) as error:  # its own errors are kinds of these
        raise InputError(
            f"{address} cannot be had ({type(error).__name__}: {str(error).splitlines()[0]}). Is there a network, "
            f"and a model of this name? A folder that was fetched on another machine loads by its path"
        ) from error
