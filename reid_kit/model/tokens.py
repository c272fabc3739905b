"""What transformers have besides maps: patches that may overlap, position embeddings, a vector for each image."""

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from reid_kit.errors import InputError


def has_class_token(network: nn.Module) -> bool:
    return getattr(network, "num_prefix_tokens", 0) > 0


def token_grid(network: nn.Module, tokens: int) -> tuple[int, int]:
    """Rows and columns of the patches that the tokens stand for; a single column where the network does not say."""
    rows, columns = getattr(getattr(network, "patch_embed", None), "grid_size", None) or (tokens, 1)
    return (rows, columns) if rows * columns == tokens else (tokens, 1)


def overlap_patches(network: nn.Module, name: str, stride: int, height: int, width: int) -> None:
    """Patches every `stride` pixels, closer than they are wide (TransReID, He et al. 2021, section 3.2).

    Position embeddings are resampled to the new grid. Pixels at the right and lower edge that no whole patch reaches
    are left out, as there.

    Raises:
        InputError: no patches with position embeddings, or a stride beyond their size.
    """
    embed = getattr(network, "patch_embed", None)
    projection, positions = getattr(embed, "proj", None), getattr(network, "pos_embed", None)
    if not isinstance(projection, nn.Conv2d) or not isinstance(positions, nn.Parameter) or positions.ndim != 3:
        raise InputError(
            f"MODEL.PATCH_STRIDE {stride} is not possible for {name}, which has no patches with learned positions; "
            f"it is for networks like vit_base_patch16_224"
        )
    size = projection.kernel_size
    if stride > min(size):
        raise InputError(
            f"MODEL.PATCH_STRIDE {stride} leaves out pixels between the patches of {size[0]} x {size[1]} pixels of "
            f"{name}; give at most {min(size)}, or 0"
        )
    old = embed.grid_size
    projection.stride = (stride, stride)
    embed.grid_size = (height - size[0]) // stride + 1, (width - size[1]) // stride + 1
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    prefix = positions.shape[1] - old[0] * old[1]
    resampled = resample_abs_pos_embed(positions.data, list(embed.grid_size), list(old), num_prefix_tokens=prefix)
    network.pos_embed = nn.Parameter(resampled)


class AddVector(nn.Module):
    """Adds to all tokens (B, N, C) of an image its row of `vectors` (B, C), which is set before each pass."""

    vectors: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens if self.vectors is None else tokens + self.vectors[:, None].to(tokens.dtype)


def take_vectors(network: nn.Module, name: str) -> AddVector:
    """Lets a transformer take a vector for each image, added where its position embeddings are.

    Raises:
        InputError: no tokens.
    """
    if not has_class_token(network) or not hasattr(network, "pos_drop"):
        raise InputError(
            f"MODEL.CAMERA_EMBEDDING is not possible for {name}, which has no tokens to add a camera's vector to; it "
            f"is for networks like vit_base_patch16_224"
        )
    added = AddVector()
    network.pos_drop = nn.Sequential(network.pos_drop, added)
    return added


class CameraVectors(nn.Module):
    """A learned vector for each camera (TransReID's side information, He et al. 2021, eq. 5), 0 where it is unknown.

    The vectors are taken less their mean, which the position embeddings hold as well: so an image of an unknown camera
    is treated as one of the average camera, and not as one that training never showed.

    Args:
        cameras: the numbers of the cameras. width: C. weight: factor on the vectors; 3.0 in the paper.
    """

    def __init__(self, cameras: list[int], width: int, weight: float):
        super().__init__()
        self.weight = weight
        self.vectors = nn.Parameter(nn.init.trunc_normal_(torch.empty(len(cameras), width), std=0.02))
        self.register_buffer("cameras", torch.tensor(cameras, dtype=torch.int64), persistent=False)

    def forward(self, cameras: Tensor) -> Tensor:
        """(B, C) of (B,) camera numbers, of which those not learned are unknown."""
        known = (cameras[:, None] == self.cameras).to(self.vectors.dtype)
        return self.weight * known @ (self.vectors - self.vectors.mean(0))
