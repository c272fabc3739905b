"""A feature map, and the class token where a transformer has one, to a vector."""

import torch
from torch import Tensor, nn

from reid_kit.errors import unknown_name


class Average(nn.Module):
    """(B, C, h, w) -> (B, C)."""

    def forward(self, maps: Tensor, token: Tensor | None = None) -> Tensor:
        return maps.mean((2, 3))


class Max(nn.Module):
    """(B, C, h, w) -> (B, C)."""

    def forward(self, maps: Tensor, token: Tensor | None = None) -> Tensor:
        return maps.amax((2, 3))


class ClassToken(nn.Module):
    """The (B, C) class token of a transformer."""

    def forward(self, maps: Tensor, token: Tensor) -> Tensor:
        return token


class ClassTokenAndPatches(nn.Module):
    """(B, 2 C): the class token, and beside it the mean of the patches."""

    widens = 2

    def forward(self, maps: Tensor, token: Tensor) -> Tensor:
        return torch.cat([token, maps.mean((2, 3))], dim=1)


class GeM(nn.Module):
    """Generalised mean (Radenovic et al. 2019, eq. 3): (mean of x^p)^(1/p), with p learned from 3, in float32."""

    def __init__(self, p: float = 3.0, epsilon: float = 1e-6):
        super().__init__()
        self.p, self.epsilon = nn.Parameter(torch.tensor(p)), epsilon

    def forward(self, maps: Tensor, token: Tensor | None = None) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            return maps.float().clamp(min=self.epsilon).pow(self.p).mean((2, 3)).pow(1 / self.p)


POOLINGS = {
    **{"average": Average, "max": Max, "gem": GeM},
    **{"cls": ClassToken, "patch": Average, "both": ClassTokenAndPatches},  # of transformers
}
OF_TOKENS = ("cls", "patch", "both")


def build_pooling(name: str) -> nn.Module:
    if name not in POOLINGS:
        raise unknown_name("pooling", name, POOLINGS)
    return POOLINGS[name]()
