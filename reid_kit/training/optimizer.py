"""Optimizers by name."""

from collections.abc import Iterable

import torch
from torch.nn import Parameter

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def build_optimizer(
    name: str,
    groups: Iterable[tuple[Iterable[Parameter], float] | tuple[Iterable[Parameter], float, bool]],
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """An optimizer over groups of (parameters, factor on `lr`, whether weight decay applies: yes where not given).

    `momentum` and `nesterov` are SGD's. On GPUs a step is one kernel.
    """
    groups = [
        {
            "params": [p for p in parameters if p.requires_grad],
            "lr": lr * factor,
            **({} if all(decayed) else {"weight_decay": 0.0}),
        }
        for parameters, factor, *decayed in groups
    ]
    options = {"momentum": momentum, "nesterov": nesterov and momentum > 0} if name == "sgd" else {}
    groups = [group for group in groups if group["params"]]
    if all(parameter.is_cuda for group in groups for parameter in group["params"]):
        options["fused"] = True
    return OPTIMIZERS[name](groups, lr, weight_decay=weight_decay, **options)
