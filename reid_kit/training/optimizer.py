"""Optimizers by name."""

from collections.abc import Iterable

import torch
from torch.nn import Parameter

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def build_optimizer(
    name: str,
    groups: Iterable[tuple[Iterable[Parameter], float]],
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """An optimizer over (parameters, factor on `lr`) groups; `momentum` and `nesterov` are SGD's.

    On GPUs a step is one kernel.
    """
    groups = [
        {"params": [p for p in parameters if p.requires_grad], "lr": lr * factor} for parameters, factor in groups
    ]
    options = {"momentum": momentum, "nesterov": nesterov and momentum > 0} if name == "sgd" else {}
    groups = [group for group in groups if group["params"]]
    if all(parameter.is_cuda for group in groups for parameter in group["params"]):
        options["fused"] = True
    return OPTIMIZERS[name](groups, lr, weight_decay=weight_decay, **options)
