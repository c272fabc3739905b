"""Which identities the model confuses, for batches made of them (Ristani and Tomasi 2018, hard identity mining)."""

import torch
from torch import Tensor

from reid_kit.distributed import gather_rows


class HardIdentities:
    """Mean embeddings of the identities, gathered from the batches of an epoch, and their nearest neighbours.

    Args:
        identities: number of training identities.
        size: neighbours kept for each, the size of its pool.
    """

    def __init__(self, identities: int, size: int):
        self.identities = identities
        self.size = min(size, identities - 1)
        self.sums: Tensor | None = None
        self.pool: dict[int, list[int]] | None = None

    def observe(self, embeddings: Tensor, labels: Tensor) -> None:
        """Adds a batch: (B, D) embeddings and (B,) labels of this process."""
        embeddings = torch.nn.functional.normalize(gather_rows(embeddings.detach()).float())
        if self.sums is None:
            self.sums = embeddings.new_zeros(self.identities, embeddings.shape[1])
        self.sums = self.sums.to(embeddings.device).index_add_(0, gather_rows(labels), embeddings)

    def end_epoch(self) -> None:
        """Turns the epoch's means into the next epoch's pool."""
        if self.sums is None:
            return
        means = torch.nn.functional.normalize(self.sums)
        similarities = (means @ means.T).fill_diagonal_(-torch.inf)
        nearest = similarities.topk(self.size, dim=1).indices
        self.pool, self.sums = dict(enumerate(nearest.tolist())), None

    def state_dict(self) -> dict:
        return {"sums": self.sums, "pool": self.pool}

    def load_state_dict(self, state: dict) -> None:
        self.sums, self.pool = state["sums"], state["pool"]
