"""The robustness suite: evaluate, results store, compare, report."""

from .compare import Comparison, compare
from .evaluate import evaluate
from .store import ResultsStore

__all__ = ["Comparison", "ResultsStore", "compare", "evaluate"]
