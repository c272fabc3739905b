"""How well features retrieve."""

from reid_kit.evaluation.retrieval import RetrievalResult, evaluate_retrieval

__all__ = ["RetrievalResult", "evaluate_retrieval"]
