"""The exponential moving average of a model's weights."""

import copy

import torch
from torch import nn


class MovingAverage(nn.Module):
    """`module`: the model with averaged weights and running statistics; the first update copies them.

    torch's AveragedModel asks the device at each update, and averages the counters of batches one by one.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        self.module, self.decay = copy.deepcopy(model), decay
        self.register_buffer("n_averaged", torch.tensor(0))  # stays on the CPU, where looking at it costs nothing

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        pairs = [
            (mine, theirs)
            for kind in ("parameters", "buffers")
            for mine, theirs in zip(getattr(self.module, kind)(), getattr(model, kind)())
        ]
        averaged = [pair for pair in pairs if pair[0].is_floating_point() and self.n_averaged > 0]
        copied = [pair for pair in pairs if not pair[0].is_floating_point() or self.n_averaged == 0]
        if averaged:
            torch._foreach_lerp_(*map(list, zip(*averaged)), 1 - self.decay)
        if copied:
            torch._foreach_copy_(*map(list, zip(*copied)))
        self.n_averaged += 1
