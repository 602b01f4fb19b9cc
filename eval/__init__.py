"""The robustness suite: evaluate, results store, compare, report."""

from .compare import Comparison, compare
from .evaluate import evaluate
from .examples import corruption_example
from .pictures import Example, difference_picture
from .report import write_report
from .store import ResultsStore

__all__ = [
    "Comparison",
    "Example",
    "ResultsStore",
    "compare",
    "corruption_example",
    "difference_picture",
    "evaluate",
    "write_report",
]
