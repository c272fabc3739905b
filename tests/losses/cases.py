"""Every registered loss with the options that a test of all losses builds it with."""

import pytest
import torch

from reid_kit.losses import LOSSES, build_loss

CLASSES, DIMENSION = 6, 8

OPTIONS = {
    "softmax": {"classes": CLASSES, "embedding_size": DIMENSION},
    "proxy_nca": {"classes": CLASSES, "embedding_size": DIMENSION},
    "cosine_softmax": {"classes": CLASSES, "embedding_size": DIMENSION},
    "circle_softmax": {"classes": CLASSES, "embedding_size": DIMENSION},
    "center": {"classes": CLASSES, "embedding_size": DIMENSION},
    "proxy_anchor": {"classes": CLASSES, "embedding_size": DIMENSION},
    "hierarchical_triplet": {"classes": CLASSES, "embedding_size": DIMENSION},
    "margin": {"miner": "all"},  # its own sampling is random
    "hdc": {"sizes": [3, 3, 2]},
    "a_bier": {"sizes": [2, 3, 3]},
}
# options that take another path through the code
VARIANTS = {
    "soft_ranking_threshold": [{"thresholds": "hard", "margin": "soft"}, {"normalize": True, "temperature": 0.1}],
    "triplet": [{"margin": "soft"}, {"distance": "squared", "reduction": "mean_nonzero"}, {"distance": "cosine"}],
    "triplet_adaptive_weight": [{"margin": "soft", "detach_weights": True}],
    "relative_absolute": [{"miner": "vthm"}, {"miner": "semi_hard"}, {"miner": "hardest"}],
    "binomial_deviance": [{"reduction": "mean", "miner": "vthm"}],
    "contrastive": [{"form": "hadsell"}],
    "generalized_lifted_structure": [{"form": "distance"}],
    "ranked_list": [{"query_weight": "mined_mass"}, {"detach_gallery": False, "detach_weights": False}],
    "proxy_nca": [{**OPTIONS["proxy_nca"], "squared": True, "positive_in_denominator": True}],
    "cosine_softmax": [
        {**OPTIONS["cosine_softmax"], "margin": 0.35, "label_smoothing": 0.1},
        {**OPTIONS["cosine_softmax"], "margin": 0.5, "margin_on": "angle"},
    ],
    "circle_softmax": [{**OPTIONS["circle_softmax"], "detach_weights": False}],
    "margin": [{"miner": "all", "classes": CLASSES}],
    "quadruplet": [{"squared": True}],
}
CASES = [
    pytest.param(name, options, id=f"{name} {options or ''}")
    for name in LOSSES
    for options in [OPTIONS.get(name, {}), *VARIANTS.get(name, [])]
]


def build(name, options, dtype=torch.float64):
    """The loss with reproducible weights of its own."""
    torch.manual_seed(0)
    loss = build_loss(name, **options).to(dtype)
    for parameter in loss.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return loss
