"""What a run is made of: frozen dataclasses, read from YAML by ``load_config``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from .errors import InputError, brief, unknown_name
from .extensions import FRONTENDS
from .load import from_dict, merge, read_sections, to_plain
from .plan import EvaluationPlan
from .recipe import TrainConfig

DEFAULT_CLASSES = 10

_NOT_OPTIONS = ("cache_dir", "in_chans", "num_classes", "features_only", "scriptable", "exportable", "no_jit")

_IN_FRONTEND = (
    *(
        "features",
        "kernel_size",
        "stride",
        "in_channels",
        "lam",
        "threshold",
        "iterations",
        "momentum",
        "output",
    ),
    *("gradient_mode", "learn_lam", "adaptive_lam", "predictor_width", "predictor_depth"),
)


@dataclass(frozen=True)
class ModelConfig:
    """A classifier: front-ends before a timm backbone.

    Attributes:
        backbone: Any timm model that takes ``in_chans``, or one that warplca registers ("resnet10_slim").
        frontend: Settings of the front-ends, in order. Given as a name ("warp-lca"), as a section with ``name`` and
            settings, or as a list of such; null is "none". All but the last output images.
        num_classes: Number of classes; null takes that of the training images, and 10 where there are none.
        stem: "small" (3x3, no max-pool; ResNet family), "wide" (the front-end "conv" before the small one, for a
            backbone that sees images), "original", or "auto": small where possible.
        stem_stride: Downsampling of the small or wide stem where the backbone sees images; null takes 2, so that its
            maps are as large as behind a front-end of stride 2.
        stem_features: Channels of the wide stem's convolution; null takes 64.
        stem_kernel: Side of its kernel; null takes 9.
        pretrained: Whether timm loads pretrained weights into the backbone.
        backbone_options: Further keyword arguments for ``timm.create_model``.
        hardened: Number of leading front-ends that ``harden`` put before a finished classifier; 0 for none.
    """

    ELSEWHERE: ClassVar[dict[str, str]] = {key: f"model.frontend.{key}" for key in _IN_FRONTEND}

    backbone: str = "resnet10_slim"
    frontend: tuple[Any, ...] = field(default=(), metadata={"registry": FRONTENDS})
    num_classes: int | None = None
    stem: Literal["auto", "small", "wide", "original"] = "auto"
    stem_stride: int | None = None
    stem_features: int | None = None
    stem_kernel: int | None = None
    pretrained: bool = False
    backbone_options: dict[str, Any] = field(default_factory=dict)
    hardened: int = 0

    def __post_init__(self) -> None:
        sections = read_sections(FRONTENDS, self.frontend, where="the model", prefix="frontend")
        object.__setattr__(self, "frontend", sections)
        for name in ("stem_stride", "stem_features", "stem_kernel"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give 1 or more, or null.")
        if self.stem != "wide" and (self.stem_features or self.stem_kernel):
            raise InputError(
                f'stem_features and stem_kernel are of the wide stem, and stem is "{self.stem}"; take stem: wide.'
            )
        for name in self.backbone_options:
            if name in _NOT_OPTIONS or str(name).startswith(("pretrained", "checkpoint")):
                raise InputError(
                    f"backbone_options has {brief(name)}, which reads or fetches files, or has a setting of its own; "
                    "leave it out."
                )
        if self.num_classes is not None and self.num_classes < 2:
            raise InputError(f"num_classes is {self.num_classes}; give at least 2.")

    @property
    def classes(self) -> int:
        """Number of classes that it is built with."""
        return self.num_classes or DEFAULT_CLASSES

    @property
    def frontend_name(self) -> str:
        """The names of the front-ends in order, joined by plus signs."""
        return " + ".join(section["name"] for section in to_plain(self.frontend))


@dataclass(frozen=True)
class RunConfig:
    """One training run: what to train, how, on what.

    Attributes:
        model: The classifier.
        train: The recipe.
        data: A source for ``load_dataset``: "cifar10-subset", a .npz file, "torchvision:DIR" or an image folder.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: str = "cifar10-subset"

    def __post_init__(self) -> None:
        _ = self.frontend_training

    @cached_property
    def frontend_training(self) -> tuple[Any, ...]:
        """Settings of each front-end's training: ``train.frontend`` as the ``Training`` of its class.

        A key goes to every front-end of the model that knows it.

        Raises:
            InputError: If no front-end of the model knows a key, or a value is out of range.
        """
        given = self.train.frontend
        kinds = [FRONTENDS.of(settings).Training for settings in self.model.frontend]
        known = {name.name for kind in kinds for name in fields(kind)}
        for key in given:
            if not known:
                raise InputError(
                    f"train.frontend.{key} is set, and the front-end {self.model.frontend_name} has no settings of "
                    "training; leave it out."
                )
            if key not in known:
                raise unknown_name(
                    f"key in the training of front-end {self.model.frontend_name}",
                    f"train.frontend.{key}",
                    [f"train.frontend.{name}" for name in known],
                )
        built = tuple(
            from_dict(
                kind,
                {name.name: given[name.name] for name in fields(kind) if name.name in given},
                where="the recipe",
                prefix="train.frontend.",
            )
            for kind in kinds
        )
        for training in built:
            training.check(self.train.epochs)
        return built


@dataclass(frozen=True)
class ComparisonConfig:
    """Several classifiers trained alike on the same data, measured alike, compared.

    Attributes:
        model: The part of the model that all arms share.
        train: The recipe that they share.
        arms: Name of each arm, and what it changes: nested keys under ``model`` and ``train``.
        baseline: The arm against which the others are tested.
        data: A source for ``load_dataset``.
        seeds: One training run of every arm for each; claims about methods need at least three.
        train_images: Use only so many training images, class-balanced; 0 for all.
        workers: Runs trained at the same time, each in a process with its share of the cores; 0 takes one a core,
            and one on a GPU.
        plan: The evaluation of every arm.
        measure_on: "test" images, or the "validation" images held out of the training images: for pilots, whose
            outcome decides something.
        selection: The evaluation on validation images that chooses the arm to export; where ``plan`` is measured
            on them, that is what chooses.
    """

    arms: dict[str, dict[str, Any]]
    baseline: str
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: str = "cifar10-subset"
    seeds: Sequence[int] = (0,)
    train_images: int = 0
    workers: int = 0
    plan: EvaluationPlan = field(default_factory=EvaluationPlan)
    measure_on: Literal["test", "validation"] = "test"
    selection: EvaluationPlan = field(default_factory=EvaluationPlan)

    def __post_init__(self) -> None:
        if self.baseline not in self.arms:
            raise InputError(f"baseline is {self.baseline!r}; give one of the arms: {', '.join(self.arms)}.")
        if self.workers < 0:
            raise InputError(f"workers is {self.workers}; give 0 (as many as help) or more.")
        if not self.seeds:
            raise InputError("seeds is empty; give at least one seed.")
        for arm in self.arms:
            self.run(arm, self.seeds[0])
        if (
            self.selection.corruptions or self.measure_on == "validation"
        ) and not self.train.validation_images:
            raise InputError(
                "selection, and measuring on them, need validation images; set train.validation_images above 0."
            )

    def run(self, arm: str, seed: int) -> RunConfig:
        """Return the training run of an arm."""
        base = {"model": self.model, "train": replace(self.train, seed=seed), "data": self.data}
        return from_dict(
            RunConfig, merge(to_plain(base, defaults=False), self.arms[arm] or {}), where=f"arm {arm!r}"
        )
