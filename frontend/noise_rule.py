"""Which lambda to denoise with: a rule fitted for each front-end, kept beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..configs.atomic import file_written_whole
from ..configs.errors import InputError, unknown_name
from .pretrained import SHIPPED, shipped_frontends

FILE = "noise_rule.json"


@dataclass(frozen=True)
class NoiseRule:
    """Lambda as a function of the noise: sqrt(lam^2 + (strength * noise)^2); see ``noise.raised_lam``.

    Attributes:
        lam: Lambda without noise.
        strength: Lambda per unit of noise, both in units of the standardised image.
        command: What fitted it.
    """

    lam: float
    strength: float
    command: str = ""


def load_noise_rule(source: str | Path) -> NoiseRule:
    """Read the rule of a front-end.

    Args:
        source: Name of a shipped front-end, or a folder.

    Raises:
        InputError: If there is no such front-end, or it has no rule or an unreadable one.
    """
    path = _path(source)
    if not path.is_file():
        raise InputError(
            f"the front-end {str(source)!r} has no rule that chooses lambda from the noise; give lambda yourself, or "
            "fit a rule with benchmarks/fit_noise_rule.py of the source repository."
        )
    try:
        return NoiseRule(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a rule that fit_noise_rule.py wrote; fit it again.") from error


def save_noise_rule(source: str | Path, rule: NoiseRule) -> Path:
    """Write the rule beside a front-end's weights and return the file."""
    path = _path(source)
    with file_written_whole(path) as temporary:
        temporary.write_text(json.dumps(asdict(rule), indent=2) + "\n", encoding="utf-8")
    return path


def _path(source: str | Path) -> Path:
    for folder in (SHIPPED / str(source), Path(source)):
        if (folder / "config.json").is_file():
            return folder / FILE
    raise unknown_name("primed front-end", str(source), shipped_frontends())
