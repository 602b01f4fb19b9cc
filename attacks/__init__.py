"""Threat models and attacks on any callable that maps pixels in [0, 1] to logits."""

from .base import Attack
from .masking import MaskingCheck, Verdict, masking_verdict
from .outcomes import MemoryStore, Outcome, OutcomeStore
from .protocol import GRADIENT_MODES, IterativeLayer, find_iterative_layers, iterative_settings
from .registry import ATTACKS, as_attack, run_attack
from .result import AttackResult
from .suite import run_suite
from .suite_result import AttackTally, SuiteResult
from .suites import IMAGE_COUNTS, SUITES, suite_attacks, suite_in
from .threat import PRESETS, ThreatModel, as_threat
from .transfer import Transfer

__all__ = [
    "ATTACKS",
    "GRADIENT_MODES",
    "IMAGE_COUNTS",
    "PRESETS",
    "SUITES",
    "Attack",
    "AttackResult",
    "AttackTally",
    "IterativeLayer",
    "MaskingCheck",
    "MemoryStore",
    "Outcome",
    "OutcomeStore",
    "SuiteResult",
    "ThreatModel",
    "Transfer",
    "Verdict",
    "as_attack",
    "as_threat",
    "find_iterative_layers",
    "iterative_settings",
    "masking_verdict",
    "run_attack",
    "run_suite",
    "suite_attacks",
    "suite_in",
]
