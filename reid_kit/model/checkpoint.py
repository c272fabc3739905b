"""Files that describe themselves: the model in them is built without any other file."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from reid_kit.device import usable_device
from reid_kit.errors import InputError
from reid_kit.files import write_atomically
from reid_kit.model.embedder import Embedder
from reid_kit.model.exported import OnnxEmbedder, read_onnx
from reid_kit.model.fingerprint import fingerprint
from reid_kit.model.pretrained import HUB, from_hub, read_folder
from reid_kit.model.weights import read_tensors

FORMAT = 1
FACTS = ("config", "dataset", "metrics", "protocol")  # of a checkpoint that go with the model wherever it goes


def save_checkpoint(
    path: str | Path,
    model: Embedder,
    *,
    config: str = "",
    dataset: str = "",
    labels: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    training: Mapping | None = None,
) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        config: the resolved config, as YAML text. dataset: what the model was trained on.
        labels: name of a training identity -> label. metrics: name -> value in 0 .. 1.
        training: what a resumed run needs; not needed to use the model.

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
        "labels": {str(identity): int(label) for identity, label in (labels or {}).items()},
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "training": training,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


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
    if not path.is_file():
        raise InputError(f"no checkpoint {path}; a run folder holds last.pt and best.pt")
    content = read_tensors(path, f"checkpoint {path}")
    if not isinstance(content, dict) or not {"format", "embedder", "state"} <= content.keys():
        raise InputError(
            f"{path} is not a reid_kit checkpoint. Weights of a backbone alone go to MODEL.WEIGHTS of a config"
        )
    if content["format"] > FORMAT:
        raise InputError(f"{path} has format {content['format']}, this version reads up to {FORMAT}; update reid_kit")
    return content


def load_state(model: nn.Module, content: Mapping, path: str | Path) -> None:
    """Puts a checkpoint's weights into a model.

    Raises:
        InputError: the model is of another architecture.
    """
    try:
        model.load_state_dict(content["state"])
    except RuntimeError as error:
        mine = getattr(model, "arguments", {})
        differing = [
            f"{key} {value!r} there, {mine.get(key)!r} here"
            for key, value in content["embedder"].items()
            if mine.get(key) != value
        ]
        raise InputError(f"{path} holds another architecture: {'; '.join(differing) or error}") from error


def load_model(checkpoint_path: str | Path, device: str | torch.device | None = None) -> Embedder:
    """The model of a checkpoint, a shared folder or an exported file, ready to embed.

    Nothing is downloaded but what `hf://organisation/name` asks for.

    Args:
        device: None is the GPU where there is one.
    """
    content = load_checkpoint(checkpoint_path)
    device = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if "onnx" in content:
        model = OnnxEmbedder(content, device)
    else:
        model = Embedder(**content["embedder"])
        load_state(model, content, checkpoint_path)
        if content.get("fingerprint") not in (None, fingerprint(model)):
            raise InputError(f"{checkpoint_path} was changed since it was written, or damaged; fetch it again")
    model.facts = {name: content[name] for name in FACTS if name in content}
    return model.eval().to(device)
