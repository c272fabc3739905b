"""Train, evaluate and use image embeddings for person re-identification and fashion retrieval."""

import importlib

_HOME = {  # public name -> module; imported when first used, so that `reid-kit --help` answers at once
    "build_loss": "reid_kit.losses",
    "evaluate_retrieval": "reid_kit.evaluation",
    "RetrievalResult": "reid_kit.evaluation",
    "k_reciprocal_distance": "reid_kit.evaluation",
    "load_dataset": "reid_kit.data.readers",
    "load_model": "reid_kit.model.checkpoint",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'reid_kit' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)
