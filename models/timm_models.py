"""Classifiers under names that timm knows: one table; importing this module makes them available.

``timm.create_model("warplca_resnet18", num_classes=10)`` builds WARP-LCA before a ResNet-18. Keyword arguments are
timm's usual ones, the fields of :class:`~warplca.configs.ModelConfig` (``frontend``: a name, "none" for none, a
dictionary with ``name`` and settings, or a list of such; its ``pretrained`` is ``backbone_pretrained`` here), and what
the backbone takes itself. A backbone outside the table goes by the name of ``warplca_classifier`` with
``backbone=...``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet
from torch import nn

from ..configs import InputError, ModelConfig, from_dict
from ..configs.integrity import refuse_pickles, verify_manifest
from .checkpoint import CONFIG, WEIGHTS
from .classifier import Classifier, build_classifier, with_channels
from .timm_api import BACKBONES, GENERIC, architecture, data_config

OWN_FIELDS = {field.name for field in fields(ModelConfig)} - {"pretrained", "backbone_options"} | set(
    ModelConfig.ELSEWHERE
)


def _classifier(
    *,
    load_weights: bool,
    num_classes: int,
    in_chans: int = 3,
    global_pool: str | None = None,
    backbone_pretrained: bool = False,
    backbone_options: dict[str, Any] | None = None,
    **options: Any,
) -> Classifier:
    """Build a classifier from timm's keyword arguments."""
    own = {name: options.pop(name) for name in list(options) if name in OWN_FIELDS}
    frontend = own.pop("frontend", "warp-lca")
    if in_chans != 3:
        frontend = with_channels(frontend, in_chans)
    if global_pool is not None:
        options["global_pool"] = global_pool
    values = {
        **own,
        "frontend": frontend,
        "num_classes": num_classes or 2,
        "pretrained": backbone_pretrained,
        "backbone_options": {**(backbone_options or {}), **options},
    }
    config = from_dict(ModelConfig, values, where="create_model")
    model = build_classifier(config, load_weights=load_weights)
    model.refuses_range = False
    if not num_classes:
        model.reset_classifier(0)
    return model


def _features(model: Classifier, out_indices: Any, **options: Any) -> nn.Module:
    """Turn a classifier into timm's list of feature maps, all levels by default."""
    if not hasattr(model.backbone, "forward_intermediates"):
        raise InputError(f"the backbone {model.config.backbone!r} gives no feature maps (features_only).")
    levels = tuple(range(len(model.feature_info))) if out_indices is None else out_indices
    return FeatureGetterNet(model, out_indices=levels, **options)


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    given = options.get("pretrained_cfg")
    cfg = given if isinstance(given, dict) else {}
    if pretrained and cfg.get("source") == "local-dir":
        refuse_pickles(Path(cfg["file"]))
        verify_manifest(Path(cfg["file"]), (WEIGHTS, CONFIG))
    return build_model_with_cfg(
        partial(_classifier, load_weights=not pretrained),
        name,
        pretrained,
        feature_cfg={"out_indices": None, "feature_cls": _features},
        **options,
    )


def _register(name: str, backbone: str | None) -> Callable[..., nn.Module]:
    """Register one name with timm."""

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        return _create(name, pretrained, **({"backbone": backbone} if backbone else {}), **options)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"WARP-LCA, or another front-end, before {backbone or 'the timm model `backbone`'}."
    return register_model(create)


def _default_cfg(backbone: str) -> dict[str, Any]:
    return {**data_config(ModelConfig(backbone=backbone)), "num_classes": 10}


_cfgs: dict[str, dict[str, Any] | PretrainedCfg] = {
    f"{architecture(name)}.untrained": _default_cfg(name) for name in BACKBONES
}

_cfgs[f"{GENERIC}.untrained"] = _default_cfg(ModelConfig().backbone)

default_cfgs = generate_default_cfgs(_cfgs)

ENTRYPOINTS = [_register(f"warplca_{name}", name) for name in BACKBONES] + [_register(GENERIC, None)]
