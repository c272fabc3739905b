"""Any timm backbone as a function from images to feature maps."""

from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn

from reid_kit.errors import InputError, unknown_name
from reid_kit.model.bn_inception import BNInception
from reid_kit.model.weights import load_weights

OWN_NETWORKS = {"bn_inception": BNInception}  # what timm does not have
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
            if level not in LEVELS:
                raise unknown_name("level of MODEL.LEVELS:", level, LEVELS)
        self.network = create(name, weights == "imagenet", height, width)
        if weights not in ("imagenet", "none"):
            load_weights(self.network, weights)
        if last_stride == 1:
            keep_last_resolution(self.network, name)
        self.levels = tuple(levels)
        self.mean, self.std = self.network.pretrained_cfg["mean"], self.network.pretrained_cfg["std"]
        with torch.no_grad():
            training = self.network.training
            maps = self.eval()(torch.zeros(1, 3, height, width))
            self.train(training)
        self.channels = [found.shape[1] for found in maps]

    def forward(self, images: Tensor) -> list[Tensor]:
        if not self.levels:
            return [self.as_map(self.network.forward_features(images))]
        last, maps = self.network.forward_intermediates(images, output_fmt="NCHW")
        maps[-1] = self.as_map(last)
        return [maps[LEVELS[level]] for level in self.levels]

    def as_map(self, features: Tensor) -> Tensor:
        """(B, C, h, w) of what a timm network returns: maps, maps with channels last, or tokens."""
        if features.ndim == 3:
            tokens = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            return tokens.transpose(1, 2)[..., None]
        return features.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else features


def create(name: str, pretrained: bool, height: int, width: int) -> nn.Module:
    """timm's network, or one of ours, without its classifier."""
    if name in OWN_NETWORKS:
        if pretrained:
            raise InputError(
                f"no ImageNet weights of {name} can be downloaded; give MODEL.WEIGHTS the path of a local file, or none"
            )
        return OWN_NETWORKS[name]()
    if not timm.is_model(name):
        raise nearest_backbone(name)
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    size = {"img_size": (height, width)} if fixed else {}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **size)
    except (OSError, RuntimeError) as error:  # offline, or no weights published
        if not pretrained:
            raise InputError(f"MODEL.BACKBONE {name} cannot be built: {error}") from error
        raise InputError(
            f"the ImageNet weights of {name} cannot be downloaded ({type(error).__name__}: is there a network?). Give "
            f"a local file, MODEL.WEIGHTS path/to/{name}.safetensors, fetched on another machine from the model hub "
            f"page timm/{name}, or train from random weights with MODEL.WEIGHTS none"
        ) from error


def nearest_backbone(name: str) -> InputError:
    import difflib

    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return InputError(f"unknown MODEL.BACKBONE {name!r}.{hint} Any name of timm.list_models() will do, or bn_inception")


def keep_last_resolution(network: nn.Module, name: str) -> None:
    """Sets the strides of the last stage that halves its map to 1, on its main path and its shortcut."""
    halving = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)) and module.stride in (2, (2, 2))
    }
    stages = [path.rsplit(".", 1)[0].split(".")[:2] for path in halving]
    if not stages or len(stages[-1]) < 2:
        raise InputError(f"MODEL.LAST_STRIDE 1 is not known for {name}, which has no stages with strides; set it to 2")
    before = network.feature_info[-1]["reduction"]
    for path, module in halving.items():
        if path.split(".")[:2] == stages[-1]:
            module.stride = 1 if isinstance(module.stride, int) else (1, 1)
            if isinstance(module, nn.AvgPool2d):  # the shortcut of a ResNet-D: pooling is all that it did
                module.kernel_size = module.stride
    size = 4 * before
    with torch.no_grad():
        training = network.training
        found = network.eval().forward_features(torch.zeros(1, 3, size, size))
        network.train(training)
    if found.ndim != 4 or found.shape[-1] != 2 * size // before:
        raise InputError(f"MODEL.LAST_STRIDE 1 does not fit {name}; set it to 2")
