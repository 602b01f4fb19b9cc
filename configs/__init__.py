"""Configuration schema, presets and the error type that users see."""

from .errors import InputError
from .extensions import import_file
from .load import from_dict, load_config, preset_names
from .plan import PLANS, AttackSetting, EvaluationPlan
from .schema import ComparisonConfig, ModelConfig, RunConfig, TrainConfig

__all__ = [
    "PLANS",
    "AttackSetting",
    "ComparisonConfig",
    "EvaluationPlan",
    "InputError",
    "ModelConfig",
    "RunConfig",
    "TrainConfig",
    "from_dict",
    "import_file",
    "load_config",
    "preset_names",
]
