"""What a run is made of: frozen dataclasses, read from YAML by ``load_config``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .errors import InputError
from .load import from_dict, merge
from .plan import EvaluationPlan
from .recipe import TrainConfig

FRONTENDS = ("conv", "lca", "warp-lca")


@dataclass(frozen=True)
class ModelConfig:
    """A classifier: a front-end before a timm backbone.

    Attributes:
        backbone: Any timm model that takes ``in_chans``, or one that warplca registers ("resnet10_slim").
        frontend: None, "conv" (strided convolution + batch norm + ReLU), "lca" or "warp-lca".
        num_classes: Number of classes.
        in_channels: Image channels.
        features: Channels of the front-end's code (atoms).
        kernel_size: Side of the atoms, or of the convolution of "conv".
        stride: Early downsampling, the same in every arm: without a front-end the backbone's stem takes it.
        lam: Threshold value of the LCA arms.
        threshold: "hard", "soft", "smooth", "hard-signed" or "soft-signed".
        iterations: Cycles of the LCA arms.
        momentum: Heavy-ball momentum; None takes the layer's own default (0 for "lca").
        output: What the front-end hands on, "code" or "reconstruction".
        gradient_mode: "unroll", "implicit" or "detach".
        learn_lam: Whether lam is trained (soft or smooth threshold only).
        adaptive_lam: Raise lam with the noise estimated from each image, by this much per unit; 0 switches it off.
        equalise: Bring the spectrum of the images that "conv" or the backbone sees (reconstructions behind an LCA) to
            the usual one: 0 (off) to 1 (fully).
        frontend_weights: Name of a shipped primed front-end, or a folder with one; None starts at random.
        predictor_width: Channels inside WARP-LCA's predictor; null takes those of frontend_weights, or 64.
        predictor_depth: Residual blocks of the predictor; null takes those of frontend_weights, or 3.
        stem_stride: Downsampling of the backbone's stem where it sees images or reconstructions; null takes stride.
        stem: "small" (3x3, no max-pool; ResNet family), "wide" (the front-end "conv" before the small one, for a
            backbone that sees images or reconstructions), "original", or "auto": small where possible.
        pretrained: Whether timm loads pretrained weights into the backbone.
        backbone_options: Further keyword arguments for ``timm.create_model``.
    """

    backbone: str = "resnet10_slim"
    frontend: str | None = None
    num_classes: int = 10
    in_channels: int = 3
    features: int = 64
    kernel_size: int = 9
    stride: int = 2
    lam: float = 0.5
    threshold: str = "hard"
    iterations: int = 10
    momentum: float | None = None
    output: Literal["code", "reconstruction"] = "code"
    gradient_mode: Literal["unroll", "implicit", "detach"] = "unroll"
    learn_lam: bool = False
    adaptive_lam: float = 0.0
    equalise: float = 0.0
    frontend_weights: str | None = None
    predictor_width: int | None = None
    predictor_depth: int | None = None
    stem_stride: int | None = None
    stem: Literal["auto", "small", "wide", "original"] = "auto"
    pretrained: bool = False
    backbone_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frontend is not None and self.frontend not in FRONTENDS:
            raise InputError(
                f"frontend is {self.frontend!r}; give null (none), {', '.join(map(repr, FRONTENDS))}."
            )
        if self.stem == "wide" and self.frontend is not None and self.output == "code":
            raise InputError('stem is "wide" behind a code, which has its channels already; take stem: auto.')
        if self.equalise and self.frontend in ("lca", "warp-lca") and self.output == "code":
            raise InputError(
                "equalise is for images, and the backbone sees a code; set output: reconstruction."
            )
        if not 0.0 <= self.equalise <= 1.0:
            raise InputError(f"equalise is {self.equalise}; give 0 (off) to 1.")
        if self.stem_stride is not None and self.stem_stride < 1:
            raise InputError(f"stem_stride is {self.stem_stride}; give 1 or more, or null.")
        if self.num_classes < 2:
            raise InputError(f"num_classes is {self.num_classes}; give at least 2.")


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


@dataclass(frozen=True)
class ComparisonConfig:
    """Several classifiers trained alike on the same data, measured alike, compared.

    Attributes:
        model: What the arms share.
        train: The recipe that they share.
        arms: Name of each arm, and what it changes: nested keys under ``model`` and ``train``.
        baseline: The arm against which the others are tested.
        data: A source for ``load_dataset``.
        seeds: One training run of every arm for each; claims about methods need at least three.
        train_images: Use only so many training images, class-balanced; 0 for all.
        workers: Runs trained at the same time, each in a process with its share of the cores; 0 takes one a core,
            and one on a GPU.
        plan: What is measured.
        measure_on: "test" images, or the "validation" images held out of the training images: for pilots, whose
            outcome decides something.
        selection: What is measured on the validation images, to choose the arm to export; where ``plan`` is measured
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
        base = {"model": asdict(self.model), "train": asdict(self.train) | {"seed": seed}, "data": self.data}
        return from_dict(RunConfig, merge(base, self.arms[arm] or {}), where=f"arm {arm!r}")
