"""What a run is made of: frozen dataclasses, read from YAML by ``load_config``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .errors import InputError
from .load import from_dict
from .plan import EvaluationPlan

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
        frontend_weights: Name of a shipped primed front-end, or a folder with one; None starts at random.
        stem: "small" (3x3, no max-pool; ResNet family), "original", or "auto": small where possible.
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
    frontend_weights: str | None = None
    stem: Literal["auto", "small", "original"] = "auto"
    pretrained: bool = False
    backbone_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frontend is not None and self.frontend not in FRONTENDS:
            raise InputError(
                f"frontend is {self.frontend!r}; give null (none), {', '.join(map(repr, FRONTENDS))}."
            )
        if self.num_classes < 2:
            raise InputError(f"num_classes is {self.num_classes}; give at least 2.")


@dataclass(frozen=True)
class TrainConfig:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training images, frozen ones included.
        frozen_epochs: First epochs in which the LCA front-end is kept as it is.
        batch_size: Images a step, over all processes together.
        learning_rate: Peak rate of SGD with Nesterov momentum.
        frontend_rate: Factor on the rate for the front-end's weights.
        sgd_momentum: Momentum of SGD.
        weight_decay: On weights of two or more dimensions except atoms.
        schedule: "one-cycle" (linear up, cosine down) or "cosine" (down only).
        warmup: Share of the steps on the way up.
        label_smoothing: 0 to below 1.
        clip_norm: Bound on the gradient's norm; 0 switches it off.
        crop_padding: Pixels of reflection padding before the random crop; 0 switches it off.
        flip: Whether images are mirrored at random.
        distillation: Weight of the predictor's self-distillation (WARP-LCA only).
        validation_images: Held out of the training images, class-balanced and seeded; 0 for none.
        precision: "no" (float32), "bf16" or "fp16".
        seed: Of initial weights, data order and augmentation.
        save_minutes: Time between saved states for resumption.
    """

    epochs: int = 10
    frozen_epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 0.1
    frontend_rate: float = 0.1
    sgd_momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    warmup: float = 0.3
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    crop_padding: int = 4
    flip: bool = True
    distillation: float = 0.1
    validation_images: int = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    seed: int = 0
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1.")
        if not 0 <= self.frozen_epochs <= self.epochs:
            raise InputError(f"frozen_epochs is {self.frozen_epochs}; give 0 to epochs ({self.epochs}).")
        if not self.learning_rate > 0.0:
            raise InputError(f"learning_rate is {self.learning_rate}; give a number above 0.")
        if not 0.0 <= self.warmup < 1.0:
            raise InputError(f"warmup is {self.warmup}; give a share from 0 to below 1.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(f"label_smoothing is {self.label_smoothing}; give a number from 0 to below 1.")


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
        plan: What is measured on the test images.
        selection: What is measured on the validation images, to choose the arm to export.
    """

    arms: dict[str, dict[str, Any]]
    baseline: str
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: str = "cifar10-subset"
    seeds: Sequence[int] = (0,)
    train_images: int = 0
    plan: EvaluationPlan = field(default_factory=EvaluationPlan)
    selection: EvaluationPlan = field(default_factory=EvaluationPlan)

    def __post_init__(self) -> None:
        if self.baseline not in self.arms:
            raise InputError(f"baseline is {self.baseline!r}; give one of the arms: {', '.join(self.arms)}.")
        if not self.seeds:
            raise InputError("seeds is empty; give at least one seed.")
        if self.selection.corruptions and not self.train.validation_images:
            raise InputError("selection needs validation images; set train.validation_images above 0.")

    def run(self, arm: str, seed: int) -> RunConfig:
        """Return the training run of an arm."""
        changes = self.arms[arm] or {}
        base = {"model": asdict(self.model), "train": asdict(self.train) | {"seed": seed}, "data": self.data}
        merged: dict[str, Any] = dict(base)
        for section, values in changes.items():
            merged[section] = {**base[section], **values} if isinstance(base.get(section), dict) else values
        return from_dict(RunConfig, merged, where=f"arm {arm!r}")
