"""Any timm backbone as a function from images to feature maps."""

import difflib
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants as hub
from timm.layers import BlurPool2d
from timm.models import load_model_config_from_hf
from torch import Tensor, nn

from reid_kit.errors import InputError, unknown_name
from reid_kit.model.bn_inception import BNInception
from reid_kit.model.osnet import OSNETS
from reid_kit.model.parts import copy_last_stage
from reid_kit.model.resnet_ibn import resnet50_ibn_a, resnet101_ibn_a
from reid_kit.model.tokens import has_class_token, overlap_patches, take_vectors, token_grid
from reid_kit.model.weights import auxiliary, load_weights

# what timm does not have
OWN_NETWORKS = {
    "bn_inception": BNInception,
    "resnet50_ibn_a": resnet50_ibn_a,
    "resnet101_ibn_a": resnet101_ibn_a,
    **OSNETS,
}
HUB = "hf-hub:"
HUB_PATIENCE = 5  # seconds
LEVELS = {"low": -3, "middle": -2, "high": -1}  # name -> stage, counted from the last


class Backbone(nn.Module):
    """(B, 3, H, W) normalised images to feature maps (B, C, h, w), the last stage's or those of several stages.

    Args:
        name: a timm model, one of the hub as "hf-hub:OWNER/MODEL", or one of OWN_NETWORKS.
        weights: "imagenet" (timm's), "none" (random), or the path of a local file.
        last_stride: 1 keeps the last stage at the resolution of the one before, 2 is the network as it is.
        levels: names of LEVELS; empty: the last features alone.
        height, width: of the images, in pixels; transformers are built for them.
        copies: of the last stage, which see the same input; the maps of all but the first follow those of the levels.
        class_token: the (B, C) class token of a transformer follows the maps.
        patch_stride: pixels between a transformer's patches; 0: their size.
        drop_path: probability that training leaves out a residual block, growing up to it with depth.
        vectors: the forward pass takes (B, C) `vectors`, which are added to all tokens of a transformer.
        options: further ones of timm's network, as the hub gives them.

    `channels` lists the C of each map; `rows` is the h of the last; `mean` and `std` are what the weights expect of
    images in 0 .. 1.

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
        *,
        copies: int = 1,
        class_token: bool = False,
        patch_stride: int = 0,
        drop_path: float = 0.0,
        vectors: bool = False,
        options: Mapping | None = None,
    ):
        super().__init__()
        for level in levels:
            if not isinstance(level, str) or level not in LEVELS:
                raise unknown_name("level of MODEL.LEVELS:", level, LEVELS)
        self.name, self.options, description = resolve(name)
        self.options |= options or {}
        pretrained = weights == "imagenet"
        self.network = create(self.name, pretrained, levels, height, width, drop_path, self.options, description)
        self.network.eval()  # for the trials below
        if patch_stride:
            overlap_patches(self.network, name, patch_stride, height, width)
        self.weights_of_heads: dict[str, Tensor] | None = None  # of a checkpoint, for those who have heads
        self.anew = [name for name, _ in self.network.named_parameters() if name.startswith(auxiliary(self.network))]
        self.loaded = ""  # what became of the weights of a file
        if weights not in ("imagenet", "none"):
            self.anew, self.weights_of_heads, self.loaded = load_weights(self.network, weights)
        self.levels, self.copies, self.class_token = tuple(levels), 1, class_token
        self.added = take_vectors(self.network, name) if vectors else None
        if class_token and not has_class_token(self.network):
            raise InputError(f"MODEL.POOLING cls and both need a transformer with a class token; {name} has none")
        self.mean, self.std = self.network.pretrained_cfg["mean"], self.network.pretrained_cfg["std"]
        image = torch.zeros(1, 3, height, width)
        with torch.no_grad():
            try:
                self(image)
            except (RuntimeError, AssertionError) as error:
                raise InputError(f"{name} cannot take images of {height} x {width} pixels: {error}") from error
            if last_stride == 1:
                keep_last_resolution(self.network, name, height, width)
            if copies > 1:
                copy_last_stage(self.network, name, copies)
                self.copies = copies
            found = self(image)
        self.channels = [maps.shape[1] for maps in found]
        self.rows = found[max(len(levels), 1) - 1].shape[2]
        self.train()

    def forward(self, images: Tensor, vectors: Tensor | None = None) -> list[Tensor]:
        if self.added is not None:
            self.added.vectors = vectors
        if self.levels:
            last, stages = self.network.forward_intermediates(images, output_fmt="NCHW")
        else:
            last = self.network.forward_features(images)
        first, *others = last.unflatten(0, (self.copies, -1))  # of a batch of any size, in an exported graph too
        maps = [self.as_map(first)]
        if self.levels:
            stages[-1] = maps[0]
            maps = [stages[LEVELS[level]] for level in self.levels]
        maps += [self.as_map(other) for other in others]
        return [*maps, first[:, 0]] if self.class_token else maps

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
            return tokens.transpose(1, 2).unflatten(2, token_grid(self.network, tokens.shape[1]))
        return features.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else features


def resolve(name: str) -> tuple[str, dict, Mapping | None]:
    """The architecture of a name, and of a model of the hub its options and its weights' description."""
    if not name.startswith(HUB):
        return name, {}, None
    try:
        description, architecture, options = load_model_config_from_hf(name.removeprefix(HUB))
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise InputError(
            f"MODEL.BACKBONE {name}: its description cannot be read from the hub ({type(error).__name__}: does it "
            f"exist, is it a model of timm, is there a network?). Any name of timm.list_models() needs no hub"
        ) from error
    return architecture, dict(options or {}), description


def create(
    name: str,
    pretrained: bool,
    levels: Sequence[str],
    height: int,
    width: int,
    drop_path: float = 0.0,
    options: Mapping | None = None,
    description: Mapping | None = None,
) -> nn.Module:
    """timm's network, or one of ours, without its classifier."""
    try:
        published = timm.get_pretrained_cfg(name)  # None where there is no such model
    except RuntimeError:  # no such tag after the dot
        published = None
    if not published and name not in OWN_NETWORKS:
        raise nearest_backbone(name)
    if pretrained and not (description or (published and published.has_weights)):
        hint = getattr(OWN_NETWORKS.get(name), "weights_hint", "give MODEL.WEIGHTS the path of a local file, or none")
        raise InputError(f"no ImageNet weights of {name} can be downloaded; {hint}")
    given = {**(options or {}), **({"drop_path_rate": drop_path} if drop_path else {})}
    try:
        if not published:
            return OWN_NETWORKS[name](levels, height, width, **given)
        if published.fixed_input_size:
            given["img_size"] = (height, width)
        described = {"pretrained_cfg": description} if description else {}
        with offline_unless_reachable() if pretrained else nullcontext():
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **described, **given)
    except TypeError as error:
        if not drop_path:
            raise
        raise InputError(f"MODEL.DROP_PATH is not possible for {name}: {error}") from error
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
    near = difflib.get_close_matches(name, [*timm.list_models(), *OWN_NETWORKS], n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return InputError(
        f"unknown MODEL.BACKBONE {name!r}.{hint} Any name of timm.list_models() will do, or {', '.join(OWN_NETWORKS)}"
    )


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
