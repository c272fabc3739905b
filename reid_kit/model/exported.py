"""An exported model in place of a checkpoint: the same features, on onnxruntime."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from reid_kit.errors import InputError
from reid_kit.model.embedder import Embedder
from reid_kit.model.pretrained import content_of
from reid_kit.reading import is_file, parsing

KEY, HASH = "reid_kit", "reid_kit_sha256"  # of the description among the file's metadata, and of its check sum
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation, RGB: what others normalise by
EXTRA = "pip install 'reid_kit[export]'"


def read_onnx(path: str | Path) -> dict:
    """The content of a checkpoint, as an .onnx file of `reid-kit export` tells it; `onnx` is the graph itself.

    Raises:
        InputError: the file is missing, damaged, or not of this toolkit; the libraries are not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise InputError(f"{path} needs onnx and onnxruntime: {EXTRA}") from error
    path = Path(path)
    if not is_file(path):
        raise InputError(f"no exported model {path}; `reid-kit export` writes one")
    with parsing(str(path), "a whole ONNX file", DecodeError):
        proto = onnx.load_model_from_string(path.read_bytes())
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    if KEY not in notes:
        raise InputError(
            f"{path} was not written by `reid-kit export`: it does not say which pixels it takes, nor in which order. "
            f"Export the checkpoint; or evaluate the features it gives with `reid-kit test --features FILE`"
        )
    if notes.get(HASH) != content_hash(proto, notes[KEY]):
        raise InputError(f"{path} is damaged, or was changed since `reid-kit export` wrote it")
    return {**content_of(json.loads(notes[KEY])), "onnx": proto}


def note(proto, description: Mapping) -> None:
    """Writes into a graph what `read_onnx` gives back."""
    text = json.dumps(description)
    for key, value in ((KEY, text), (HASH, content_hash(proto, text))):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def content_hash(proto, text: str) -> str:
    """SHA-256 over a description and the names and bytes of a graph's constants."""
    found = hashlib.sha256(text.encode())
    for constant in proto.graph.initializer:
        found.update(constant.name.encode())
        found.update(constant.raw_data or constant.SerializeToString())
    return found.hexdigest()


def imagenet_mean_std() -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each, for pixels in 0 .. 255."""
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    return mean, std


def start_session(proto, device: str | torch.device = "cpu"):
    """An onnxruntime session of a graph, with torch's number of threads.

    Raises:
        InputError: onnxruntime is not installed or refuses the graph.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as refusals
    except ImportError as error:
        raise InputError(f"an .onnx file needs onnxruntime: {EXTRA}") from error
    kinds = tuple(kind for kind in vars(refusals).values() if isinstance(kind, type) and issubclass(kind, Exception))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; it warns of each constant that it folds
    wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=providers)
    except kinds as error:
        raise InputError(f"onnxruntime refuses the graph: {str(error).splitlines()[0]}") from error


class InferenceFeature:
    """What an exported model gives: no feature before the neck."""

    def __init__(self, inference: Tensor):
        self.inference = inference

    @property
    def metric(self) -> Tensor:
        raise InputError(
            "an exported model has the inference feature alone; test the checkpoint, or TEST.FEATURE inference"
        )


class OnnxEmbedder(Embedder):
    """An exported model that takes images and gives features as the `Embedder` does that it was made from.

    The file's own output is L2-normalised. Here the tensor before that is asked for, so that a euclidean ranking and
    the mean over mirror images are the checkpoint's.

    Args:
        content: of `read_onnx`. device: images go there and come from there; the graph runs there if onnxruntime can.
    """

    def __init__(self, content: Mapping, device: str | torch.device = "cpu"):
        nn.Module.__init__(self)  # there are no layers to build
        proto, self.arguments = content["onnx"], content["embedder"]
        self.height, self.width, self.enlarge = (self.arguments[name] for name in ("height", "width", "enlarge"))
        self.level_sizes, self.fingerprint = content["level_sizes"], content["fingerprint"]
        self.normalized = content["export"]["input"] == "normalized"
        self.before_norm = content["export"]["before_norm"]
        for name, value in zip(("mean", "std"), imagenet_mean_std()):
            self.register_buffer(name, value, persistent=False)
        proto.graph.output[0].name = self.before_norm
        self.session = start_session(proto, device)

    def forward(self, images: Tensor) -> InferenceFeature:
        """Features of (B, 3, height, width) RGB images in 0 .. 255, uint8 or float."""
        pixels = images.float()
        if self.normalized:
            pixels = (pixels - self.mean) / self.std
        (found,) = self.session.run([self.before_norm], {"images": pixels.cpu().numpy()})
        return InferenceFeature(torch.from_numpy(found).to(images.device))

    def save_pretrained(self, folder: str | Path) -> None:
        raise InputError("an exported model has no weights to share as a folder; load the checkpoint it was made from")
