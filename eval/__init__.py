"""The robustness suite: evaluate, results store, compare, report."""

from ..configs.execution import Execution
from .compare.compare import compare
from .compare.wording import Comparison
from .measure.certify import certify
from .measure.evaluate import evaluate
from .measure.planning import CorruptionSource
from .measure.smoothed import CertificationPlan
from .report.page import RunRecord, write_report
from .report.pictures import Example, corruption_example, difference_picture
from .results.evaluation import Evaluation
from .results.records import Entry
from .results.store import ResultsStore

__all__ = [
    "CertificationPlan",
    "Comparison",
    "CorruptionSource",
    "Entry",
    "Evaluation",
    "Example",
    "Execution",
    "ResultsStore",
    "RunRecord",
    "certify",
    "compare",
    "corruption_example",
    "difference_picture",
    "evaluate",
    "write_report",
]
