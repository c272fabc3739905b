"""BN-Inception, the papers' GoogLeNet V2 (Ioffe and Szegedy 2015), with the layer names of its shared weights."""

from collections.abc import Sequence

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

# level -> its auxiliary block, the block that it follows, its channels, how often the image's sides were halved there
AUXILIARY = {"low": ("loss1", "3c", 576, 4), "middle": ("loss2", "4e", 1056, 5)}


class BNInception(nn.Module):
    """(B, 3, H, W) RGB images to maps (B, 1024, H/32, W/32), with the parts of timm's interface that `Backbone` uses.

    With the levels low and middle it keeps its auxiliary blocks as Ioffe and Szegedy trained it: after inception_3c and
    4e an average pool of 5 with stride 3, a 1 x 1 convolution to 128 channels and a layer of 1,024, each with batch
    norm and ReLU. Ranked list loss puts its embedding layers of 512 where their classifiers were (section 3.4). The
    blocks are called loss1 and loss2, as in Caffe; they are built for images of `height` x `width` pixels.

    The shared weights expect pixels in 0 .. 255 less (128, 117, 104), in the order BGR; `forward_features` takes what
    `pretrained_cfg` says, in RGB, and turns the channels itself.
    """

    pretrained_cfg = {"mean": (128 / 255, 117 / 255, 104 / 255), "std": (1 / 255, 1 / 255, 1 / 255)}
    feature_info = [{"module": "inception_5b", "num_chs": 1024, "reduction": 32}]
    output_fmt = "NCHW"
    auxiliary = tuple(f"{block}_" for block, *_ in AUXILIARY.values())
    weights_hint = (
        "give MODEL.WEIGHTS the path of the file that the field shares, bn_inception-52deb4733.pth of "
        "pretrained-models.pytorch (names as inception_3a_1x1.weight; trained on BGR images in 0 .. 255 less 104, 117, "
        "128, undivided, all of which is taken care of), or none for random weights; or run this row on another "
        "backbone with weights, as MODEL.BACKBONE resnet50"
    )

    def __init__(self, levels: Sequence[str] = (), height: int = 227, width: int = 227):
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
        for level in [level for level in AUXILIARY if level in levels]:
            block, _, channels, halvings = AUXILIARY[level]
            cells = pooled_side(height, halvings) * pooled_side(width, halvings)
            self.convolution(f"{block}_conv", channels, 128, 1)
            self.add_module(f"{block}_fc", nn.Linear(128 * cells, 1024))
            self.add_module(f"{block}_fc_bn", nn.BatchNorm1d(1024))

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

    def auxiliary_block(self, name: str, maps: Tensor) -> Tensor:
        """(B, 1024, 1, 1) of the maps after 3c or 4e."""
        maps = F.avg_pool2d(maps, [min(5, side) for side in maps.shape[2:]], 3, ceil_mode=True)
        return self.run(f"{name}_fc", self.run(f"{name}_conv", maps).flatten(1))[:, :, None, None]

    def forward_intermediates(self, images: Tensor, output_fmt: str = "NCHW") -> tuple[Tensor, list[Tensor]]:
        """The last maps, and the low, middle and high level: maps, or what an auxiliary block makes of them."""
        maps = F.max_pool2d(self.run("conv1_7x7_s2", images.flip(1)), 3, 2, ceil_mode=True)
        maps = self.run("conv2_3x3", self.run("conv2_3x3_reduce", maps))
        maps = F.max_pool2d(maps, 3, 2, ceil_mode=True)
        found = []
        for name in BLOCKS:
            maps = self.block(name, maps)
            for block, after, *_ in AUXILIARY.values():
                if name == after:
                    found.append(self.auxiliary_block(block, maps) if hasattr(self, f"{block}_fc") else maps)
        return maps, [*found, maps]

    def forward_features(self, images: Tensor) -> Tensor:
        return self.forward_intermediates(images)[0]


def halve(maps: Tensor) -> Tensor:
    """Max pooling of stride 2 without padding at the top and left, where the shared weights were trained.

    Odd sides get one row of zeros (maps are not negative), for a size equal to that of the convolutions beside it.
    """
    height, width = maps.shape[2:]
    return F.max_pool2d(F.pad(maps, (0, width % 2, 0, height % 2)), 3, 2, ceil_mode=True)


def pooled_side(side: int, halvings: int) -> int:
    """Of an image of `side` pixels, what an auxiliary block's pool leaves: 4 and 2 of the papers' 227."""
    for step in range(halvings):
        side = side // 2 if step in (1, 2) else (side + 1) // 2  # the two max pools round down, convolutions up
    return max(side // 3, 1)


def checkpoint_filter_fn(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Takes off the leading 1 that older files have before the vectors of batch norms."""
    return {name: value[0] if value.ndim == 2 and len(value) == 1 else value for name, value in state.items()}
