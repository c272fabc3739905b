"""OSNet (Zhou et al. 2019), small networks for people, with the layer names of the weights that torchreid publishes."""

from functools import partial

import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

CHANNELS = (64, 256, 384, 512)  # of the stem and the three stages, at width 1


class Convolution(nn.Module):
    """A convolution, batch norm and, but where a sum follows, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.bn(self.conv(maps))
        return F.relu(maps) if self.relu else maps


class LightConvolution(nn.Module):
    """A 3 x 3 convolution in two: 1 x 1 over the channels, then 3 x 3 in each (figure 3b)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv2(self.conv1(maps))))


class Gate(nn.Module):
    """The unified aggregation gate: weighs each channel of a stream by what the stream sees (equation 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.fc2(F.relu(self.fc1(maps.mean((2, 3), keepdim=True)))).sigmoid()


class Block(nn.Module):
    """The omni-scale residual block (figure 4): streams of 1, 2, 3 and 4 light convolutions, which see 3, 5, 7 and 9
    pixels, summed by one gate that all share."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        middle = outputs // 4
        self.conv1 = Convolution(inputs, middle)
        self.conv2a = LightConvolution(middle)
        self.conv2b, self.conv2c, self.conv2d = (
            nn.Sequential(*(LightConvolution(middle) for _ in range(length))) for length in (2, 3, 4)
        )
        self.gate = Gate(middle)
        self.conv3 = Convolution(middle, outputs, relu=False)
        self.downsample = Convolution(inputs, outputs, relu=False) if inputs != outputs else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        narrow = self.conv1(maps)
        streams = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        summed = sum(self.gate(stream(narrow)) for stream in streams)
        return F.relu(self.conv3(summed) + self.downsample(maps))


class OSNet(nn.Module):
    """(B, 3, H, W) images to maps (B, 512 x width, H/16, W/16), with the parts of timm's interface `Backbone` uses.

    Its 512-d layer and classifier are left out: `MODEL.EMBEDDING_SIZE` puts a layer there.
    """

    pretrained_cfg = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    weights_hint = "give MODEL.WEIGHTS the path of a file of torchreid's model zoo, or none for random weights"

    def __init__(self, *levels_and_size: object, width: float = 1.0):
        super().__init__()
        stem, *stages = (int(channels * width) for channels in CHANNELS)
        self.feature_info = [{"module": "conv4", "num_chs": stages[-1], "reduction": 16}]
        self.conv1 = Convolution(3, stem, 7, stride=2)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.conv2 = nn.Sequential(*blocks(stem, stages[0]), halving(stages[0]))
        self.conv3 = nn.Sequential(*blocks(stages[0], stages[1]), halving(stages[1]))
        self.conv4 = nn.Sequential(*blocks(stages[1], stages[2]))
        self.conv5 = Convolution(stages[2], stages[2])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_intermediates(self, images: Tensor, output_fmt: str = "NCHW") -> tuple[Tensor, list[Tensor]]:
        """The last maps, and those of the three stages."""
        first = self.conv2(self.maxpool(self.conv1(images)))
        second = self.conv3(first)
        last = self.conv5(self.conv4(second))
        return last, [first, second, last]

    def forward_features(self, images: Tensor) -> Tensor:
        return self.forward_intermediates(images)[0]


def blocks(inputs: int, outputs: int) -> list[Block]:
    return [Block(inputs, outputs), Block(outputs, outputs)]


def halving(channels: int) -> nn.Sequential:
    """What ends a stage."""
    return nn.Sequential(Convolution(channels, channels), nn.AvgPool2d(2, 2))


OSNETS = {
    "osnet_x1_0": OSNet,
    "osnet_x0_75": partial(OSNet, width=0.75),
    "osnet_x0_5": partial(OSNet, width=0.5),
    "osnet_x0_25": partial(OSNet, width=0.25),
}
