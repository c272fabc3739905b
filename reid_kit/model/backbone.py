"""Any timm backbone as a function from images to feature maps."""

import difflib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants as hub
from timm.layers import BlurPool2d
from torch import Tensor, nn

from reid_kit.errors import InputError, unknown_name
from reid_kit.model.bn_inception import BNInception
from reid_kit.model.weights import auxiliary, load_weights

OWN_NETWORKS = {"bn_inception": BNInception}  # what timm does not have
HUB_PATIENCE = 5  # seconds
LEVELS = {"low": -3, "middle": -2, "high": -1}  # name -> stage, counted from the last


class Backbone(nn.Module):
    """(B, 3, H, W) normalised images to feature maps (B, C, h, w), the last stage's or those of several stages.

    Args:
        name: a timm model, or "bn_inception".
        weights: "imagenet" (timm's), "none" (random), or the path of a local file.
        last_stride: 1 keeps the last stage at the resolution of the one before, 2 is the network as it is.
        levels: names of LEVELS; empty: the last features alone.
        height, width: of the images, in pixels; transformers are built for them.

    `channels` lists the C of each map; `mean` and `std` are what the weights expect of images in 0 .. 1.

    Raises:
        InputError: an unknown name, weights that cannot be had or do not fit, a stride that cannot be changed.
    """

    def __init__(
        self,
        name: str,
        weights: str = "imagenet",
        last_stride: int = 2,
        levels: Sequence[str] = (),
        height: int = 256,
        width: int = 128,
    ):
        super().__init__()
        for level in levels:
            if not isinstance(level, str) or level not in LEVELS:
                raise unknown_name("level of MODEL.LEVELS:", level, LEVELS)
        self.weights_of_heads: dict[str, Tensor] | None = None  # of a checkpoint, for those who have heads
        self.network = create(name, weights == "imagenet", levels, height, width).eval()  # for the trials below
        self.anew = [name for name, _ in self.network.named_parameters() if name.startswith(auxiliary(self.network))]
        if weights not in ("imagenet", "none"):
            self.anew, self.weights_of_heads = load_weights(self.network, weights)
        self.levels = tuple(levels)
        self.mean, self.std = self.network.pretrained_cfg["mean"], self.network.pretrained_cfg["std"]
        with torch.no_grad():
            try:
                self.channels = [maps.shape[1] for maps in self(torch.zeros(1, 3, height, width))]
            except (RuntimeError, AssertionError) as error:
                raise InputError(f"{name} cannot take images of {height} x {width} pixels: {error}") from error
            if last_stride == 1:
                keep_last_resolution(self.network, name, height, width)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        if not self.levels:
            return [self.as_map(self.network.forward_features(images))]
        last, maps = self.network.forward_intermediates(images, output_fmt="NCHW")
        maps[-1] = self.as_map(last)
        return [maps[LEVELS[level]] for level in self.levels]

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Those of auxiliary blocks that the weights did not hold: they learn as new layers do."""
        return (parameter for name, parameter in self.network.named_parameters() if name in self.anew)

    def given_parameters(self) -> Iterator[nn.Parameter]:
        """All others."""
        return (parameter for name, parameter in self.network.named_parameters() if name not in self.anew)

    def as_map(self, features: Tensor) -> Tensor:
        """(B, C, h, w) of what a timm network returns: maps, maps with channels last, or tokens."""
        if features.ndim == 3:
            tokens = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            return tokens.transpose(1, 2)[..., None]
        return features.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else features


def create(name: str, pretrained: bool, levels: Sequence[str], height: int, width: int) -> nn.Module:
    """timm's network, or one of ours, without its classifier."""
    try:
        published = timm.get_pretrained_cfg(name)  # None where there is no such model
    except RuntimeError:  # no such tag after the dot
        published = None
    if not published and name not in OWN_NETWORKS:
        raise nearest_backbone(name)
    if pretrained and not (published and published.has_weights):
        hint = getattr(OWN_NETWORKS.get(name), "weights_hint", "give MODEL.WEIGHTS the path of a local file, or none")
        raise InputError(f"no ImageNet weights of {name} can be downloaded; {hint}")
    if not published:
        return OWN_NETWORKS[name](levels, height, width)
    size = {"img_size": (height, width)} if published.fixed_input_size else {}
    try:
        with offline_unless_reachable() if pretrained else nullcontext():
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **size)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise InputError(f"MODEL.BACKBONE {name} cannot be built: {error}") from error
        page = published.hf_hub_id or published.url
        raise InputError(
            f"the ImageNet weights of {name} cannot be downloaded ({type(error).__name__}: is there a network?). Give "
            f"a local file, MODEL.WEIGHTS path/to/{name}.safetensors, fetched on another machine from the model hub "
            f"page {page}, or train from random weights with MODEL.WEIGHTS none"
        ) from error


@contextmanager
def offline_unless_reachable() -> Iterator[None]:
    """Where the model hub does not answer, only what was downloaded before is looked for: the hub's client would try
    again and again for most of a minute. A proxy is left to the client."""
    before = hub.HF_HUB_OFFLINE
    host = urlsplit(hub.ENDPOINT)
    try:
        if not before and "https" not in getproxies():
            socket.create_connection((host.hostname, host.port or 443), timeout=HUB_PATIENCE).close()
    except OSError:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def nearest_backbone(name: str) -> InputError:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return InputError(f"unknown MODEL.BACKBONE {name!r}.{hint} Any name of timm.list_models() will do, or bn_inception")


def keep_last_resolution(network: nn.Module, name: str, height: int, width: int) -> None:
    """Sets the strides of the last stage that halves its map to 1, on its main path and its shortcut.

    The network is in test mode and is tried on an image, for there are stages that do not work so.
    """
    kinds = (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d, BlurPool2d)
    halving = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, kinds) and module.stride in (2, (2, 2))
    }
    stages = [path.rsplit(".", 1)[0].split(".")[:2] for path in halving]
    for path, module in halving.items():
        if path.split(".")[:2] == stages[-1]:
            module.stride = 1 if isinstance(module.stride, int) else (1, 1)
            if isinstance(module, nn.AvgPool2d) and module.kernel_size in (2, (2, 2)):
                module.kernel_size = module.stride  # the shortcut of a ResNet-D: pooling is all that it did
    try:
        found = network.forward_features(torch.zeros(1, 3, height, width)).shape[2:]
    except (RuntimeError, AssertionError):  # branches of different sizes, or attention built for one size
        found = None
    reduction = network.feature_info[-1]["reduction"] // 2
    if found != (-(-height // reduction), -(-width // reduction)):
        raise InputError(
            f"MODEL.LAST_STRIDE 1 is not possible for {name}: its last stage does not halve the map by strides of its "
            f"convolutions alone; set it to 2"
        )
