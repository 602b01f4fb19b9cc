"""Primed front-ends: a folder with ``model.safetensors``, ``config.json``, ``README.md`` and ``SHA256SUMS``.

A front-end that denoises has a rule beside its weights that chooses lambda from the noise, ``noise_rule.json``.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..configs.atomic import file_written_whole, folder_written_whole
from ..configs.errors import InputError, unknown_name
from ..configs.extensions import FRONTENDS
from ..configs.integrity import named_folder, names_in, refuse_pickles, verify_manifest, write_manifest
from ..configs.load import from_dict, to_plain
from ..configs.untrusted import MANIFEST, folder_with, plain_file, read_json
from .base import Frontend

SHIPPED = Path(__file__).parent / "pretrained"
RULE_FILE = "noise_rule.json"
FILES = ("model.safetensors", "config.json", "README.md", MANIFEST, RULE_FILE)
GEOMETRY = ("in_channels", "features", "kernel_size", "stride")
LEARNED_SETTINGS = ("lam_raw", "adaptive_raw")
"""Names of weights that are settings: what priming learned of them is kept in the settings of a primed front-end."""


def shipped_frontends(kind: str | None = None) -> list[str]:
    """Names of the primed front-ends inside the package; of one kind, e.g. "warp-lca", or of all."""
    return [name for name in names_in(SHIPPED) if kind is None or open_primed(SHIPPED / name).kind == kind]


@dataclass(frozen=True)
class Primed:
    """A primed front-end on disk.

    Attributes:
        source: The name or path that the user gave.
        folder: Folder of the files.
        kind: Name of its front-end, e.g. "warp-lca".
        settings: Settings, as plain values.
        facts: Measurements at the end of priming, and the data.
    """

    source: str
    folder: Path
    kind: str
    settings: dict[str, Any]
    facts: dict[str, Any]

    def state(self) -> dict[str, Tensor]:
        """Read the weights.

        Raises:
            InputError: If they cannot be read.
        """
        path = self.folder / "model.safetensors"
        try:
            return load_file(plain_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}); prime or copy it again.") from error


def open_primed(source: str | Path) -> Primed:
    """Read what a primed front-end is; its weights are read by :meth:`Primed.state`.

    Args:
        source: Name of a shipped front-end, or a folder.

    Raises:
        InputError: If there is no such front-end, or its description cannot be read.
    """
    folder = _folder(source)
    try:
        refuse_pickles(folder)
        verify_manifest(folder, ("model.safetensors", "config.json"))
        config = read_json(folder / "config.json")
        settings = dict(config["frontend"])
        return Primed(str(source), folder, str(settings.pop("name")), settings, dict(config.get("facts", {})))
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'} is not the description of a front-end.") from error


def _folder(source: str | Path) -> Path:
    folder = named_folder(source, SHIPPED)
    if (folder / "config.json").is_file():
        return folder
    if folder.exists():
        raise InputError(f"{folder} holds no config.json; give a folder that `warplca prime` wrote.")
    raise unknown_name("primed front-end", str(source), shipped_frontends())


def save_frontend(
    frontend: Frontend, folder: str | Path, *, card: str, facts: Mapping[str, Any] | None = None
) -> None:
    """Write a primed front-end as a folder, whole or not at all.

    Args:
        frontend: The front-end.
        folder: Folder to write; an older front-end there is replaced, anything else refused.
        card: Text of its README.md: data, seed, energies, sparsity, licence.
        facts: Measured figures for config.json.
    """
    with folder_written_whole(Path(folder), ours=folder_with("frontend", FILES)) as target:
        state = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in frontend.state_dict().items()
            if name not in LEARNED_SETTINGS
        }
        (target / "model.safetensors").write_bytes(save(state))
        config = {"frontend": _primed_settings(frontend), "facts": dict(facts or {})}
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (target / "README.md").write_text(card, encoding="utf-8")
        write_manifest(target, ("model.safetensors", "config.json"))


def _primed_settings(frontend: Frontend) -> dict[str, Any]:
    """Its settings as plain values, without the weights that it started from and whether priming learned lambda."""
    plain = to_plain(frontend.settings)
    return {key: value for key, value in plain.items() if key not in ("weights", "learn_lam")}


class Primable(Frontend):
    """A front-end whose weights may come from a primed one: its settings have ``weights``; subclasses write ``_build``.

    Args:
        settings: Settings of the front-end.
        load_weights: Whether the weights that the settings name are loaded; a checkpoint brings its own.
    """

    origin = ("weights",)

    def __init__(self, settings: Any = None, *, load_weights: bool = True, **options: Any) -> None:
        super().__init__(settings, **options)
        primed = open_primed(self._settings.weights) if load_weights and self._settings.weights else None
        self._build(primed)
        if primed is not None:
            self.load_primed(primed)

    @abstractmethod
    def _build(self, primed: Primed | None) -> None:
        """Make modules and buffers; sizes that the settings leave open follow from the primed weights."""

    @classmethod
    def from_pretrained(cls, name: str | Path, **overrides: Any) -> Self:
        """Build a layer from a primed front-end, in evaluation mode.

        Args:
            name: Name of a shipped front-end (``shipped_frontends()``) or a folder that ``warplca prime`` wrote.
            **overrides: Settings to change, e.g. ``output="reconstruction"``.

        Raises:
            InputError: If there is no such front-end, or the weights do not fit the settings.
        """
        known = [entry.name for entry in fields(cls.Settings)]
        unknown = next((key for key in overrides if key not in known), None)
        if unknown:
            raise unknown_name(f"{cls.__name__} argument", unknown, known)
        primed = open_primed(name)
        values = {key: value for key, value in primed.settings.items() if key in known}
        if primed.kind != FRONTENDS.name_of(cls.Settings):
            # What WARP-LCA was primed with is not plain LCA: cold start, no momentum, its own number of cycles.
            for key in ("iterations", "momentum", "step_size"):
                values.pop(key, None)
        values |= {"weights": str(name), **overrides}
        return cls(from_dict(cls.Settings, values, where=f"the primed front-end {str(name)!r}")).eval()

    def load_primed(self, primed: Primed) -> None:
        """Load primed weights of the same geometry; a plain LCA takes the dictionary alone.

        Raises:
            InputError: If the geometry differs, or what this layer needs is missing.
        """
        own = vars(self.settings)
        for key in self._fixed_by(primed):
            if primed.settings[key] != own[key]:
                raise InputError(
                    f"the primed front-end {primed.source!r} has {key} {primed.settings[key]}, this layer has "
                    f"{own[key]}; build the layer with the same {key}."
                )
        # lam belongs to the layer's settings; a plain LCA has no predictor and no learned steps
        wanted = [name for name in self.state_dict() if name not in LEARNED_SETTINGS]
        state = self._fitted(primed, {n: t for n, t in primed.state().items() if n in wanted})
        missing = [name for name in wanted if name not in state]
        if missing:
            raise InputError(
                f"the primed front-end {primed.source!r} lacks {missing[0]}: it is of another kind; "
                "prime one with `warplca prime`."
            )
        self.load_state_dict(state, strict=False)

    def _fixed_by(self, primed: Primed) -> tuple[str, ...]:
        """Settings that must be those of the primed weights."""
        return GEOMETRY

    def _fitted(self, primed: Primed, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fit primed tensors to this layer."""
        return state


@dataclass(frozen=True)
class NoiseRule:
    """Lambda as a function of the noise: sqrt(lam^2 + (strength * noise)^2); see ``noise.raised_lam``.

    Attributes:
        lam: Lambda without noise.
        strength: Lambda per unit of noise, both in units of the standardised image.
        command: The command that fitted the rule.
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
    path = _folder(source) / RULE_FILE
    if not path.is_file():
        raise InputError(
            f"the front-end {str(source)!r} has no rule that chooses lambda from the noise; give lambda yourself, or "
            "fit a rule with benchmarks/fit_noise_rule.py of the source repository."
        )
    try:
        return NoiseRule(**read_json(path))
    except (InputError, TypeError) as error:
        raise InputError(f"{path} is not a rule that fit_noise_rule.py wrote; fit it again.") from error


def save_noise_rule(source: str | Path, rule: NoiseRule) -> Path:
    """Write the rule beside a front-end's weights and return the file."""
    path = _folder(source) / RULE_FILE
    with file_written_whole(path) as temporary:
        temporary.write_text(json.dumps(asdict(rule), indent=2) + "\n", encoding="utf-8")
    return path
