"""A memory of past batches as a larger gallery (Wang et al. 2020, "Cross-Batch Memory")."""

import torch
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import whole_number


class CrossBatchMemory(EmbeddingLoss):
    """`loss` with the batch's anchors against the batch and the last `size` embeddings of earlier batches.

    The batch enters the memory after the loss, so that no embedding meets itself there. What is remembered is
    detached. Over several processes every rank remembers the same rows in the same order.

    Raises:
        InputError: the loss does not split over anchors; a size below 1.
    """

    def __init__(self, loss: EmbeddingLoss, size: int):
        super().__init__()
        if loss.whole_batch:
            raise InputError(f"{loss.name} is defined on whole batches and takes no memory; remove it from the term")
        self.loss, self.size, self.name = loss, whole_number(f"memory of {loss.name}", size), loss.name
        self.feature, self.needs_positives = loss.feature, loss.needs_positives
        self.register_buffer("embeddings", torch.empty(0, 0))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))

    def compute(self, batch: Batch) -> Tensor:
        found, labels = batch.gallery, batch.gallery_labels
        remembered = self.embeddings.to(found) if len(self.embeddings) else found[:0].detach()
        if remembered.shape[1] != found.shape[1]:
            raise InputError(
                f"the memory of {self.name} holds embeddings {remembered.shape[1]} wide, "
                f"but the batch's are {found.shape[1]} wide; start with an empty memory"
            )
        remembered_labels = self.labels.to(labels)
        wide = Batch(
            batch.anchors,
            batch.anchor_labels,
            torch.cat([found, remembered]),
            torch.cat([labels, remembered_labels]),
            batch.first,
        )
        value = self.loss.compute(wide)
        self.active_fraction = self.loss.active_fraction
        self.embeddings = torch.cat([remembered, found.detach()])[-self.size :]
        self.labels = torch.cat([remembered_labels, labels])[-self.size :]
        return value

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest) -> None:
        for name in ("embeddings", "labels"):  # their length is that of the saved memory
            saved = state_dict.get(f"{prefix}{name}")
            if saved is not None:
                setattr(self, name, saved.new_empty(saved.shape).to(getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
