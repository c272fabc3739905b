"""Train, evaluate and use image embeddings for person re-identification and fashion retrieval."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # at run time a name is imported when first used, so that `reid-kit --help` answers at once
    from reid_kit.data.readers import load_dataset
    from reid_kit.evaluation import RetrievalResult, evaluate_retrieval, k_reciprocal_distance
    from reid_kit.gallery import open_gallery
    from reid_kit.losses import build_loss
    from reid_kit.model.checkpoint import load_model

_HOME = {  # public name -> module
    "build_loss": "reid_kit.losses",
    "evaluate_retrieval": "reid_kit.evaluation",
    "RetrievalResult": "reid_kit.evaluation",
    "k_reciprocal_distance": "reid_kit.evaluation",
    "load_dataset": "reid_kit.data.readers",
    "load_model": "reid_kit.model.checkpoint",
    "open_gallery": "reid_kit.gallery",
}
__all__ = [
    "RetrievalResult",
    "build_loss",
    "evaluate_retrieval",
    "k_reciprocal_distance",
    "load_dataset",
    "load_model",
    "open_gallery",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("reid_kit")
    if name not in _HOME:
        raise AttributeError(f"module 'reid_kit' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
