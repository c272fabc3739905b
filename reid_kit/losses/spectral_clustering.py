"""Deep spectral clustering (Law et al. 2017)."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import normalized
from reid_kit.losses.registry import register


@register("spectral_clustering")
class SpectralClustering(EmbeddingLoss):
    """-1/2 tr(J J^T F F^+): how much of the true clustering the column space of the batch's embeddings F (B, D) spans.

    J = Y / sqrt(class count), Y (B, C) the indicators of the classes. From -C/2, spanned, to 0. Its gradient by F is
    (F F^+ J - J) (F^+ J)^T, of any rank, F^+ being the pseudo-inverse with singular values below
    max(B, D) * machine epsilon * the largest taken as 0. Where B <= D the embeddings of a batch can span anything and
    the loss teaches nothing, which is warned of: choose B well above D (the paper's are 1,260 and 512).

    Options:
        normalize: L2-normalise the embeddings first.

    `active_fraction` is the share of J outside the span: 0 once the loss is at its minimum.
    """

    whole_batch = True

    def __init__(self, normalize: bool = False):
        super().__init__()
        self.normalize = normalize
        self._warned_of_width = False

    def compute(self, batch: Batch) -> Tensor:
        embeddings = (normalized(batch) if self.normalize else batch).gallery
        if embeddings.shape[0] <= embeddings.shape[1] and not self._warned_of_width:
            self._warned_of_width = True
            warnings.warn(
                f"spectral_clustering learns nothing from {embeddings.shape[0]} images of {embeddings.shape[1]} "
                f"dimensions, which span any clustering: take a batch (SAMPLER.P x K) of well more images than "
                f"dimensions, or a smaller MODEL.EMBEDDING_SIZE",
                stacklevel=5,  # the line that called the loss, as in EmbeddingLoss.collect
            )
        _, classes, counts = torch.unique(batch.gallery_labels, return_inverse=True, return_counts=True)
        J = F.one_hot(classes, len(counts)) / counts.double().sqrt()
        loss = _ProjectionLoss.apply(embeddings, J)
        self.active_fraction = (1 + 2 * loss.detach() / max(len(counts), 1)).clamp(0, 1)
        return loss


class _ProjectionLoss(torch.autograd.Function):
    """The loss and its gradient in closed form: the derivative of an SVD has poles where singular values meet."""

    @staticmethod
    def forward(ctx, embeddings: Tensor, J: Tensor) -> Tensor:
        U, S, Vh = torch.linalg.svd(embeddings.double(), full_matrices=False)
        floor = max(embeddings.shape) * torch.finfo(embeddings.dtype).eps * S.amax() if S.numel() else 0
        kept = floor < S
        U, S, Vh = U[:, kept], S[kept], Vh[kept]
        inside = U.T @ J
        ctx.save_for_backward((U @ inside - J) @ (inside / S[:, None]).T @ Vh)
        return (-inside.square().sum() / 2).to(embeddings.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return (gradient * slope).to(gradient.dtype), None
