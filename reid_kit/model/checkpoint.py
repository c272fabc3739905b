"""Files that describe themselves: the model in them is built without any other file."""

import inspect
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from reid_kit.device import usable_device
from reid_kit.errors import InputError, shortened
from reid_kit.files import write_atomically
from reid_kit.model.embedder import Embedder
from reid_kit.model.exported import OnnxEmbedder, read_onnx
from reid_kit.model.fingerprint import fingerprint
from reid_kit.model.pretrained import HUB, from_hub, read_folder
from reid_kit.model.weights import check_finite, read_tensors
from reid_kit.operating_point import OperatingPoint
from reid_kit.reading import PARSER_ERRORS, is_file

FORMAT = 1
FACTS = (
    "config",
    "dataset",
    "metrics",
    "chosen",
    "protocol",
)  # of a checkpoint that go with the model wherever it goes
CONTENT = {  # what a checkpoint holds, and of which kind
    "embedder": (dict,),
    "state": (dict,),
    "config": (str,),
    "labels": (dict,),
    "training": (dict, type(None)),
}


def save_checkpoint(
    path: str | Path,
    model: Embedder,
    *,
    config: str = "",
    dataset: str = "",
    labels: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    training: Mapping | None = None,
    chosen: str = "",
) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        config: the resolved config, as YAML text. dataset: what the model was trained on.
        labels: name of a training identity -> label. metrics: name -> value in 0 .. 1.
        training: what a resumed run needs; not needed to use the model.
        chosen: which weights of the run these are, in words.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    content = {
        "format": FORMAT,
        "model_name": model.arguments["backbone"],
        "embedder": model.arguments,
        "state": model.state_dict(),
        "config": config,
        "dataset": dataset,
        "labels": {name if isinstance(name, str) else int(name): int(label) for name, label in (labels or {}).items()},
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "training": training,
        "chosen": chosen,
    }
    write_content(path, content)


def write_content(path: str | Path, content: Mapping) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def save_tested(
    path: str | Path, thresholds: Iterable[OperatingPoint], metrics: Mapping[str, float], protocol: str
) -> None:
    """Puts into a checkpoint what a test of its model found, and how it measured; it goes with the model from there.

    Args:
        thresholds: on the cosine distance; `load_model` gives them as `model.thresholds`.
        metrics: name -> value in 0 .. 1. protocol: the line that says what they depend on.
    """
    points = [asdict(point) for point in thresholds]
    found = {"thresholds": points, "metrics": dict(metrics), "protocol": protocol}
    write_content(path, {**load_checkpoint(path), **found})


def load_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint, of a folder that `save_pretrained` wrote (`hf://organisation/name` on the model
    hub), or of an .onnx file of `reid-kit export`; on the CPU, and code in it is not run.

    Raises:
        InputError: the file is missing, truncated, holds code, is none of this toolkit, or of a later format.
    """
    if str(path).startswith(HUB):
        return read_folder(from_hub(str(path)))
    path = Path(path)
    if path.is_dir():
        return read_folder(path)
    if path.suffix == ".onnx":
        return read_onnx(path)
    if not is_file(path):
        raise InputError(f"no checkpoint {path}; a run folder holds last.pt and best.pt")
    content = read_tensors(path, f"checkpoint {path}")
    if not isinstance(content, dict) or not {"format", "embedder", "state"} <= content.keys():
        raise InputError(
            f"{path} is not a reid_kit checkpoint. Weights of a backbone alone go to MODEL.WEIGHTS of a config"
        )
    if type(content["format"]) is not int:
        raise InputError(
            f"{path}: format {shortened(content['format'])} is no whole number; it is no checkpoint of ours"
        )
    if content["format"] > FORMAT:
        raise InputError(f"{path} has format {content['format']}, this version reads up to {FORMAT}; update reid_kit")
    for key, kinds in CONTENT.items():
        if not isinstance(content.get(key), kinds) or key not in content:
            raise InputError(
                f"{path} is damaged, or another program's: its {key} is {shortened(content.get(key))}, where "
                f"{kinds[0].__name__} was expected"
            )
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content["state"].items()):
        raise InputError(f"{path}: its state holds something else than named tensors")
    check_finite(content["state"], f"checkpoint {path}")
    return content


def build(content: Mapping, path: str | Path) -> Embedder:
    """The model that a checkpoint describes, with random weights.

    Raises:
        InputError: this version cannot build it.
    """
    known = inspect.signature(Embedder).parameters
    later = [name for name in content["embedder"] if name not in known]
    if later:
        raise InputError(f"checkpoint {path}: this version does not know {later[0]!r} of its model; update reid_kit")
    try:
        return Embedder(**content["embedder"])
    except (*PARSER_ERRORS, InputError) as error:
        raise InputError(f"checkpoint {path}: its model cannot be built: {error}") from error


def load_state(model: nn.Module, content: Mapping, path: str | Path) -> None:
    """Puts a checkpoint's weights into a model.

    Raises:
        InputError: the model is of another architecture.
    """
    try:
        model.load_state_dict(content["state"])
    except PARSER_ERRORS as error:
        mine = getattr(model, "arguments", {})
        differing = [
            f"{key} {value!r} there, {mine.get(key)!r} here"
            for key, value in content["embedder"].items()
            if mine.get(key) != value
        ]
        raise InputError(f"{path} holds another architecture: {'; '.join(differing) or error}") from error


def load_model(checkpoint_path: str | Path, device: str | torch.device | None = None) -> Embedder:
    """The model of a checkpoint, a shared folder or an exported file, ready to embed, with the thresholds of its run.

    Nothing is downloaded but what `hf://organisation/name` asks for.

    Args:
        device: None is the GPU where there is one.
    """
    content = load_checkpoint(checkpoint_path)
    device = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if "onnx" in content:
        model = OnnxEmbedder(content, device)
    else:
        model = build(content, checkpoint_path)
        load_state(model, content, checkpoint_path)
        if content.get("fingerprint") not in (None, fingerprint(model)):
            raise InputError(f"{checkpoint_path} was changed since it was written, or damaged; fetch it again")
    model.facts = {name: content[name] for name in FACTS if name in content}
    try:
        model.thresholds = [OperatingPoint(**point) for point in content.get("thresholds", ())]
    except TypeError as error:
        raise InputError(f"{checkpoint_path}: its thresholds cannot be read: {error}") from error
    return model.eval().to(device)
