"""The robustness suite: evaluate, results store, compare, report."""

from .compare.compare import compare
from .compare.wording import Comparison
from .measure.certify import certify
from .measure.evaluate import evaluate
from .report.page import write_report
from .report.pictures import Example, corruption_example, difference_picture
from .results.evaluation import Evaluation
from .results.store import ResultsStore

__all__ = [
    "Comparison",
    "Evaluation",
    "Example",
    "ResultsStore",
    "certify",
    "compare",
    "corruption_example",
    "difference_picture",
    "evaluate",
    "write_report",
]
