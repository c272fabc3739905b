"""BN-Inception, the papers' GoogLeNet V2 (Ioffe and Szegedy 2015), with the layer names of its shared weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool, projection; no 1x1 and no projection: stride 2
BLOCKS = {
    "3a": (64, 64, 64, 64, 96, "average", 32),
    "3b": (64, 64, 96, 64, 96, "average", 64),
    "3c": (0, 128, 160, 64, 96, "max", 0),
    "4a": (224, 64, 96, 96, 128, "average", 128),
    "4b": (192, 96, 128, 96, 128, "average", 128),
    "4c": (160, 128, 160, 128, 160, "average", 128),
    "4d": (96, 128, 192, 160, 192, "average", 128),
    "4e": (0, 128, 192, 192, 256, "max", 0),
    "5a": (352, 192, 320, 160, 224, "average", 128),
    "5b": (352, 192, 320, 192, 224, "max", 128),
}


class BNInception(nn.Module):
    """(B, 3, H, W) RGB images to maps (B, 1024, H/32, W/32), with the parts of timm's interface that `Backbone` uses.

    The shared weights expect pixels in 0 .. 255 less (128, 117, 104), in the order BGR; `forward_features` takes what
    `pretrained_cfg` says, in RGB, and turns the channels itself.
    """

    pretrained_cfg = {"mean": (128 / 255, 117 / 255, 104 / 255), "std": (1 / 255, 1 / 255, 1 / 255)}
    feature_info = [{"module": "inception_5b", "num_chs": 1024, "reduction": 32}]
    output_fmt = "NCHW"

    def __init__(self):
        super().__init__()
        self.convolution("conv1_7x7_s2", 3, 64, 7, stride=2)
        self.convolution("conv2_3x3_reduce", 64, 64, 1)
        self.convolution("conv2_3x3", 64, 192, 3)
        channels = 192
        for name, (one, reduce, three, double_reduce, double, _, projection) in BLOCKS.items():
            stride, block = (1 if one else 2), f"inception_{name}"
            if one:
                self.convolution(f"{block}_1x1", channels, one, 1)
            self.convolution(f"{block}_3x3_reduce", channels, reduce, 1)
            self.convolution(f"{block}_3x3", reduce, three, 3, stride)
            self.convolution(f"{block}_double_3x3_reduce", channels, double_reduce, 1)
            self.convolution(f"{block}_double_3x3_1", double_reduce, double, 3)
            self.convolution(f"{block}_double_3x3_2", double, double, 3, stride)
            if projection:
                self.convolution(f"{block}_pool_proj", channels, projection, 1)
            channels = one + three + double + (projection or channels)

    def convolution(self, name: str, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(inputs, outputs, size, stride, padding=size // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def run(self, name: str, maps: Tensor) -> Tensor:
        return F.relu(getattr(self, f"{name}_bn")(getattr(self, name)(maps)))

    def block(self, name: str, maps: Tensor) -> Tensor:
        one, _, _, _, _, pool, projection = BLOCKS[name]
        block = f"inception_{name}"
        parts = [self.run(f"{block}_1x1", maps)] if one else []
        parts.append(self.run(f"{block}_3x3", self.run(f"{block}_3x3_reduce", maps)))
        double = self.run(f"{block}_double_3x3_1", self.run(f"{block}_double_3x3_reduce", maps))
        parts.append(self.run(f"{block}_double_3x3_2", double))
        if pool == "average":
            pooled = F.avg_pool2d(maps, 3, 1, padding=1)
        else:
            pooled = F.max_pool2d(maps, 3, 1, padding=1) if one else halve(maps)
        parts.append(self.run(f"{block}_pool_proj", pooled) if projection else pooled)
        return torch.cat(parts, dim=1)

    def forward_intermediates(self, images: Tensor, output_fmt: str = "NCHW") -> tuple[Tensor, list[Tensor]]:
        """The last maps, and those after the third, fourth and fifth group of blocks (RLL's low, middle and high)."""
        maps = F.max_pool2d(self.run("conv1_7x7_s2", images.flip(1)), 3, 2, ceil_mode=True)
        maps = self.run("conv2_3x3", self.run("conv2_3x3_reduce", maps))
        maps = F.max_pool2d(maps, 3, 2, ceil_mode=True)
        found = []
        for name in BLOCKS:
            maps = self.block(name, maps)
            if name in ("3c", "4e", "5b"):
                found.append(maps)
        return maps, found

    def forward_features(self, images: Tensor) -> Tensor:
        return self.forward_intermediates(images)[0]


def halve(maps: Tensor) -> Tensor:
    """Max pooling of stride 2 without padding at the top and left, where the shared weights were trained.

    Odd sides get one row of zeros (maps are not negative), for a size equal to that of the convolutions beside it.
    """
    height, width = maps.shape[2:]
    return F.max_pool2d(F.pad(maps, (0, width % 2, 0, height % 2)), 3, 2, ceil_mode=True)
