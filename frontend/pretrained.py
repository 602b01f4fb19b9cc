"""Primed front-ends: a folder with ``model.safetensors``, ``config.json`` and ``README.md``.

A front-end that denoises has a rule beside its weights that chooses lambda from the noise, ``noise_rule.json``.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..configs.atomic import file_written_whole, folder_written_whole
from ..configs.errors import InputError, unknown_name
from .sparse.lca import LCA
from .sparse.schedule import LearnedSteps
from .sparse.warp import WarpLCA

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "pretrained"

GEOMETRY = ("in_channels", "features", "kernel_size", "stride")

PREDICTOR = ("predictor_width", "predictor_depth")


def shipped_frontends() -> list[str]:
    """Names of the primed front-ends inside the package."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / "config.json").is_file())


def layer_config(layer: LCA) -> dict[str, Any]:
    """Return the constructor's arguments that rebuild a layer (as JSON takes them)."""
    features, channels, kernel, _ = layer.dictionary.weight.shape
    config: dict[str, Any] = {
        "kind": "warp-lca" if isinstance(layer, WarpLCA) else "lca",
        "in_channels": channels,
        "features": features,
        "kernel_size": kernel,
        "stride": layer.dictionary.stride,
        "lam": float(layer.lam),
        "threshold": layer.threshold_name,
        "iterations": layer.iterations,
        "momentum": layer.momentum,
        "step_size": layer.step_size,
        "adaptive_lam": layer.adaptive_lam,
    }
    if isinstance(layer, WarpLCA):
        config["predictor_width"] = layer.predictor.stem.out_channels
        config["predictor_depth"] = len(layer.predictor.blocks)
    else:
        config["accelerated"] = layer.accelerated
    return config


def save_frontend(
    layer: LCA, folder: str | Path, *, card: str, facts: Mapping[str, Any] | None = None
) -> None:
    """Write a primed layer as a folder, whole or not at all.

    Args:
        layer: The layer.
        folder: Where to; replaced if it exists.
        card: Text of its README.md: data, seed, energies, sparsity, licence.
        facts: Measured figures for config.json.
    """
    with folder_written_whole(Path(folder)) as target:
        state = {name: tensor.contiguous() for name, tensor in layer.state_dict().items()}
        (target / "model.safetensors").write_bytes(save(state))
        config = {"layer": layer_config(layer), "facts": dict(facts or {})}
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (target / "README.md").write_text(card, encoding="utf-8")


def load_frontend(layer: LCA, source: str | Path) -> None:
    """Load primed weights into a layer of the same geometry; a plain LCA takes the dictionary alone.

    Args:
        layer: The layer.
        source: Name of a shipped front-end, or a folder.

    Raises:
        InputError: If there is no such front-end or its geometry differs.
    """
    folder, config = _open(source)
    own = layer_config(layer)
    for key in (*GEOMETRY, *(key for key in PREDICTOR if key in config and key in own)):
        if config[key] != own[key]:
            raise InputError(
                f"the primed front-end {str(source)!r} has {key} {config[key]}, this layer has {own[key]}; "
                "build the layer with the same geometry."
            )
    try:
        state = load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{folder / 'model.safetensors'} cannot be read ({error}); prime or copy it again."
        ) from error
    wanted = layer.state_dict()
    # lam belongs to the layer's configuration; a plain LCA has no predictor and no learned steps
    state = {name: tensor for name, tensor in state.items() if name in wanted and name != "lam_raw"}
    if isinstance(layer, WarpLCA):
        _warn_of_another_threshold(source, config, own)
        state.setdefault("predictor._extra_state", torch.tensor(float(config["lam"]), dtype=torch.float64))
    learned = {name: state.pop(name) for name in list(state) if name.startswith("steps.")}
    if isinstance(layer, WarpLCA) and layer.steps is not None:
        state |= _fitted_steps(layer.steps, learned)
    missing = [name for name in wanted if name not in state and name != "lam_raw"]
    if missing:
        raise InputError(
            f"the primed front-end {str(source)!r} lacks {missing[0]}: it is of another kind; "
            "prime one with `warplca prime`."
        )
    layer.load_state_dict(state, strict=False)


L = TypeVar("L", bound=LCA)


def from_pretrained(cls: type[L], source: str | Path, overrides: Mapping[str, Any]) -> L:
    """Build a layer as it was primed; see :meth:`LCA.from_pretrained`."""
    _, config = _open(source)
    kind = config.pop("kind")
    unknown = next((key for key in overrides if key not in inspect.signature(cls).parameters), None)
    if unknown:
        raise unknown_name(f"{cls.__name__} argument", unknown, inspect.signature(cls).parameters)
    if kind == "warp-lca" and not issubclass(cls, WarpLCA):
        # What WARP-LCA was primed with is not plain LCA: cold start, no momentum, its own number of cycles.
        for key in ("iterations", "momentum", "step_size", *PREDICTOR):
            config.pop(key, None)
    layer = cls(**{**config, **overrides})
    load_frontend(layer, source)
    return layer.eval()


def predictor_size(source: str | Path) -> dict[str, int]:
    """Return width and depth of a front-end's predictor, as WarpLCA's arguments; nothing if it has none."""
    _, config = _open(source)
    return {key: int(config[key]) for key in PREDICTOR if key in config}


def frontend_facts(source: str | Path) -> dict[str, Any]:
    """Return what was measured when a front-end was primed, and on what."""
    folder, _ = _open(source)
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("facts", {}))


def _open(source: str | Path) -> tuple[Path, dict[str, Any]]:
    folder = SHIPPED / str(source)
    if not (folder / "config.json").is_file():
        folder = Path(source)
    if not (folder / "config.json").is_file():
        raise unknown_name("primed front-end", str(source), shipped_frontends())
    try:
        return folder, dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["layer"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'} is not the description of a front-end.") from error


def _warn_of_another_threshold(source: str | Path, primed: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    if "threshold" in primed and primed["threshold"] != own["threshold"]:
        logger.warning(
            "the primed front-end %r was primed for threshold %r (here %r): its predictor aims at other states",
            str(source),
            primed["threshold"],
            own["threshold"],
        )


def _fitted_steps(own: LearnedSteps, learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return as many learned steps as the layer has cycles; cycles beyond them take the primed tail."""
    if not learned:
        return {}
    count = len(learned["steps.step_raw"])
    primed = LearnedSteps(max(count, len(own.step_raw)), own.tail_momentum)
    primed.cycles = count
    primed.set_extra_state(learned.get("steps._extra_state", primed.get_extra_state()))
    primed.fill(count, primed.tail_step, primed.tail_momentum)
    fitted = primed.state_dict(prefix="steps.")
    for name in ("steps.step_raw", "steps.momentum_raw"):
        fitted[name][:count] = learned[name]
        fitted[name] = fitted[name][: len(own.step_raw)]
    return fitted


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
