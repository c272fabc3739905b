"""A model as an ONNX graph."""

import copy
import logging
import warnings

import torch
from torch import Tensor, nn

from reid_kit.errors import InputError
from reid_kit.model.embedder import Embedder
from reid_kit.model.exported import EXTRA, OnnxEmbedder, imagenet_mean_std

OPSET = 18  # what the exporter writes by itself; for other versions it converts
INPUTS = ("pixels", "normalized")
LARGEST = 2**31 - 1  # bytes that an ONNX file in one piece can hold


class Unit(nn.Module):
    """(B, 3, H, W) to (B, D) of length 1."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        found = self.model(images).inference
        return found / found.norm(dim=1, keepdim=True).clamp(min=1e-12)


class HalfBackbone(nn.Module):
    """A backbone in float16 between float32; what comes after it sums many numbers, and is a small part of the work."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.class_token = backbone.half(), backbone.class_token

    def forward(self, images: Tensor, vectors: None = None) -> list[Tensor]:
        return [maps.float() for maps in self.backbone(images.half(), vectors)]


def to_onnx(model: Embedder, inputs: str = "pixels", half: bool = False):
    """The graph of a model as onnx.ModelProto, from `images` (batch, 3, height, width) to `features` (batch, D).

    Both are float32, and the features L2-normalised.

    Args:
        inputs: "pixels": RGB in 0 .. 255, normalised inside. "normalized": RGB in 0 .. 1 less ImageNet's mean, over
            its deviation; what the model takes instead is made of that inside.
        half: the backbone's weights and arithmetic in float16.

    Raises:
        InputError: the libraries are not installed, or the model cannot be exported.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export needs onnx, onnxscript and onnxruntime: {EXTRA}") from error
    if isinstance(model, OnnxEmbedder):
        raise InputError("this is an exported model already; give the checkpoint it was made from")
    name = model.arguments["backbone"]
    model = copy.deepcopy(model).cpu().float().eval()
    if inputs == "normalized":
        mean, std = imagenet_mean_std()
        model.mean.sub_(mean).div_(std)
        model.std.div_(std)
    if half:
        model.backbone = HalfBackbone(model.backbone)
    size = sum(value.nbytes for value in model.state_dict().values())
    if size > LARGEST:
        raise InputError(f"{name} takes {size / 2**30:.1f} GiB, and an ONNX file holds 2 GiB; --half takes half of it")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    images = torch.zeros(2, 3, model.height, model.width)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own parts
            proto = torch.onnx.export(
                Unit(model).eval(),
                (images,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                verbose=False,
            ).model_proto
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, KeyError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"{name} cannot be exported to ONNX: {type(error).__name__}: {cause}") from error
    if proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param != "batch":
        raise InputError(f"{name} cannot be exported to ONNX: its graph takes batches of one size alone")
    return without_traces(proto)


def before_norm(proto) -> str:
    """The name of the features before they are brought to length 1: what the last division divides."""
    (last,) = (node for node in proto.graph.node if "features" in node.output)
    return last.input[0]


def without_traces(proto):
    """The graph without the lines of code and the folders of this machine that the exporter notes at each node."""
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, proto):
        del part.metadata_props[:]
        part.doc_string = ""
    return proto
