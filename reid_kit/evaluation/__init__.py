"""How well features retrieve."""

from reid_kit.evaluation.rerank import k_reciprocal_distance
from reid_kit.evaluation.retrieval import RetrievalResult, evaluate_distances, evaluate_retrieval

__all__ = ["RetrievalResult", "evaluate_distances", "evaluate_retrieval", "k_reciprocal_distance"]
