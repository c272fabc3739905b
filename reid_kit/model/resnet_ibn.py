"""ResNets with instance-batch normalisation (IBN-a; Pan et al. 2018), with the names of the field's weight files."""

import timm
import torch
from torch import Tensor, nn


class InstanceBatchNorm(nn.Module):
    """Instance normalisation of the first half of the channels, which style is taken from, batch norm of the rest."""

    def __init__(self, channels: int):
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, maps: Tensor) -> Tensor:
        first, rest = maps.split([self.half, maps.shape[1] - self.half], dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(rest.contiguous())], dim=1)


def resnet_ibn_a(name: str, **options) -> nn.Module:
    """timm's ResNet with this norm after the first convolution of each block, but those of the last stage."""
    network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            block.bn1 = InstanceBatchNorm(block.conv1.out_channels)
    network.pretrained_cfg = {**network.pretrained_cfg, "architecture": f"{name}_ibn_a"}
    return network


def resnet50_ibn_a(*levels_and_size: object, **options) -> nn.Module:
    """The same for all levels and sizes of images."""
    return resnet_ibn_a("resnet50", **options)


def resnet101_ibn_a(*levels_and_size: object, **options) -> nn.Module:
    """The same for all levels and sizes of images."""
    return resnet_ibn_a("resnet101", **options)
