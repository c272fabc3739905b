"""What stands between the feature the metric losses see and the one that is compared at test."""

from torch import nn

from reid_kit.errors import unknown_name


def bnneck(width: int) -> nn.BatchNorm1d:
    """Batch normalisation without a shift (Luo et al. 2019, "BNNeck")."""
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck


NECKS = {"none": lambda width: nn.Identity(), "bnneck": bnneck}


def build_neck(name: str, width: int) -> nn.Module:
    if name not in NECKS:
        raise unknown_name("neck", name, NECKS)
    return NECKS[name](width)
