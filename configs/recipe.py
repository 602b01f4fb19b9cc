"""How a classifier is trained: the recipe and its sections, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from .errors import InputError, at_least
from .extensions import LOSSES
from .load import read_sections

T = TypeVar("T")
LARGEST_RATE = 100.0
RANGES = {
    "sgd_momentum": (0.0, 0.9999),
    "bias_rate": (0.0, 1000.0),
    "layer_decay": (0.0, 1.0),
    "weight_decay": (0.0, 1.0),
    "clip_norm": (0.0, 1e6),
    "save_minutes": (0.0, 1e6),
}


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation beyond crop and flip.

    Attributes:
        smallest_area: Each image is cut out at random, at least this share of its area (0.08 is usual on ImageNet) and
            between 3:4 and 4:3 in shape, and scaled to the size of the set; 1 switches it off. Images on disk are
            cut out of the whole picture. Usual without shifts, ``train.crop_padding: 0``.
        noise: Largest standard deviation of Gaussian noise, in pixels of [0, 1]; each noisy image draws its
            own between 0 and this. 0 switches it off.
        noise_share: Share of the images that get noise; null takes one half where there is any.
        policy: "none", "augmix", "prime" or "randaugment", drawn for each image by itself.
        severity: AugMix's severity, or RandAugment's magnitude in thirtieths; null takes 3.
        width: Chains that AugMix and PRIME mix; null takes 3.
        operations: RandAugment's operations on an image; null takes 2.
        workers: Processes that read images from disk, cut them out and apply RandAugment ahead of the training loop;
            0 does so within the step. Runs that are trained several at once have at most their share of the cores. The
            images are the same.
    """

    ELSEWHERE: ClassVar[dict[str, str]] = {"lam_spread": "train.frontend.lam_spread"}
    FILLED: ClassVar[dict[str, Any]] = {"noise_share": 0.5, "severity": 3, "width": 3, "operations": 2}

    smallest_area: float = 1.0
    noise: float = 0.0
    noise_share: float | None = None
    policy: Literal["none", "augmix", "prime", "randaugment"] = "none"
    severity: int | None = None
    width: int | None = None
    operations: int | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        policy = f"augment.policy is {self.policy!r}"
        _only(self, "noise_share", self.noise > 0.0, "augment.noise is 0")
        _only(self, "severity", self.policy in ("augmix", "randaugment"), policy)
        _only(self, "width", self.policy in ("augmix", "prime"), policy)
        _only(self, "operations", self.policy == "randaugment", policy)
        if not 0.0 < self.smallest_area <= 1.0:
            raise InputError(
                f"augment.smallest_area is {self.smallest_area}; give a share above 0, or 1 (off)."
            )
        if not 0.0 <= self.noise <= 1.0:
            raise InputError(f"augment.noise is {self.noise}; give 0 (off) to 1, the whole range of pixels.")
        if self.noise_share is not None:
            _share("augment.noise_share", self.noise_share)
        for name in ("width", "operations"):
            if getattr(self, name) is not None:
                at_least(f"augment.{name}", getattr(self, name), 1)
        at_least("augment.workers", self.workers, 0)
        largest = 10 if self.policy == "augmix" else 30
        if self.severity is not None and not 1 <= self.severity <= largest:
            raise InputError(f"augment.severity is {self.severity}; give 1 to {largest}.")


@dataclass(frozen=True)
class AverageConfig:
    """An average of the weights, which is then validated and saved in place of the last weights.

    Attributes:
        kind: "none", "ema" (exponential) or "swa" (equal weights over the last part of training).
        decay: The exponential average's memory of its past at each step; null takes 0.999 for "ema".
        start: Share of the steps after which "swa" begins; null takes 0.75.
    """

    FILLED: ClassVar[dict[str, Any]] = {"decay": 0.999, "start": 0.75}

    kind: Literal["none", "ema", "swa"] = "none"
    decay: float | None = None
    start: float | None = None

    def __post_init__(self) -> None:
        _only(self, "decay", self.kind == "ema", f"average.kind is {self.kind!r}")
        _only(self, "start", self.kind == "swa", f"average.kind is {self.kind!r}")
        for name in ("decay", "start"):
            if getattr(self, name) is not None:
                _share(f"average.{name}", getattr(self, name))


@dataclass(frozen=True)
class SelectConfig:
    """Which epoch's weights the checkpoint holds, and when to stop; measured on the held-out training images only.

    Attributes:
        keep: "last", or "best" of all epochs (Rice, Wong and Kolter, ICML 2020).
        by: The measure of an epoch: "accuracy" on clean images, or "robust" accuracy under PGD-10 of the loss's threat.
        patience: Stop after so many epochs without a better one; 0 never stops.
        robust_images: Held-out images that are attacked after each epoch; null takes 256 where any are.
        largest_drop: Stop "fast" training when robust accuracy falls this far below its best, or to a quarter of it:
            catastrophic overfitting (Wong, Rice and Kolter, ICLR 2020); null takes 0.2.
    """

    keep: Literal["last", "best"] = "last"
    by: Literal["accuracy", "robust"] = "accuracy"
    patience: int = 0
    robust_images: int | None = None
    largest_drop: float | None = None

    def __post_init__(self) -> None:
        at_least("select.patience", self.patience, 0)
        if self.robust_images is not None:
            at_least("select.robust_images", self.robust_images, 1)
        if self.largest_drop is not None:
            _share("select.largest_drop", self.largest_drop)


@dataclass(frozen=True)
class TrainConfig:
    """The recipe by which a classifier is trained.

    Attributes:
        init: Weights from which the backbone starts: a checkpoint folder, a shipped classifier's name, or a safetensors
            file with the state of a network of the same architecture; null starts at random.
        epochs: Passes over the training images, frozen ones included.
        batch_size: Images a step, over all processes together.
        learning_rate: Peak rate of SGD with Nesterov momentum.
        sgd_momentum: Momentum of SGD.
        bias_rate: Factor on the rate of the backbone's biases and norms.
        layer_decay: Factor on the rate from each layer of the backbone, as timm's networks name them, to the one before
            it; the last one has the whole rate. For fine-tuning, where early layers are to change least; 1 switches
            it off. The front-end has ``train.frontend.rate``.
        weight_decay: On weights of two or more dimensions except atoms.
        schedule: "one-cycle" (linear up, cosine down) or "cosine" (down only).
        warmup: Share of the steps on the way up; null takes 0.3 for "one-cycle".
        label_smoothing: 0 to below 1; null takes 0.1, and 0 for the loss "mart", which has none.
        clip_norm: Bound on the gradient's norm; 0 switches it off.
        crop_padding: Pixels of reflection padding before the random crop; 0 switches it off.
        flip: Whether images are mirrored at random; "alternating" mirrors each image in every other epoch instead, one
            half of them in the first (Jordan 2024).
        validation_images: Held out of the training images, class-balanced and seeded; 0 for none.
        precision: "no" (float32 in full), "tf32" (NVIDIA's shorter float32), "bf16", "fp16", or "auto": bf16 where
            the device computes it faster than float32 (GPUs that have it, CPUs with AVX512-BF16 or AMX), else "no".
        seed: Seed of initial weights, data order and augmentation.
        save_minutes: Time between saved states for resumption.
        keep_states: Saved states kept; older ones are deleted.
        accumulation: Parts of each batch, computed one after the other: less memory for the same step.
        compile: Whether ``torch.compile`` compiles the classifier.
        sync_norm: On GPUs, whether batch norm sees the batches of all processes together.
        log_steps: Steps between readings of the figures that gather on the device.
        loss: The loss: a name of ``LOSSES``, or a section with ``name`` and the keys of its class's
            ``Settings``; see ``train.losses`` and ``train.adversarial``.
        augment: Augmentation beyond crop and flip.
        average: An average of the weights.
        select: Which epoch's weights the checkpoint holds, and when to stop early.
        frontend: Training of the front-end: the keys of its class's ``Training``, such as
            ``frozen_epochs`` and ``rate``.
    """

    ELSEWHERE: ClassVar[dict[str, str]] = {
        "frozen_epochs": "train.frontend.frozen_epochs",
        "distillation": "train.frontend.distillation",
    }
    FILLED: ClassVar[dict[str, Any]] = {"warmup": 0.3, "label_smoothing": 0.1}

    init: str | None = None
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.1
    sgd_momentum: float = 0.9
    bias_rate: float = 1.0
    layer_decay: float = 1.0
    weight_decay: float = 5e-4
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    warmup: float | None = None
    label_smoothing: float | None = None
    clip_norm: float = 5.0
    crop_padding: int = 4
    flip: bool | Literal["alternating"] = True
    validation_images: int = 0
    precision: Literal["no", "tf32", "bf16", "fp16", "auto"] = "no"
    seed: int = 0
    save_minutes: float = 5.0
    keep_states: int = 2
    accumulation: int = 1
    compile: bool = False
    sync_norm: bool = True
    log_steps: int = 10
    loss: Any = field(default="standard", metadata={"registry": LOSSES})
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    frontend: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sections = (
            self.loss
            if isinstance(self.loss, tuple)
            else read_sections(LOSSES, self.loss, where="the recipe", prefix="loss")
        )
        if len(sections) != 1:
            raise InputError(f"loss has {len(sections)} sections; give one.")
        object.__setattr__(self, "loss", sections[0])
        for name in ("epochs", "batch_size", "keep_states", "accumulation", "log_steps"):
            at_least(name, getattr(self, name), 1)
        for name in ("crop_padding", "validation_images", "seed"):
            at_least(name, getattr(self, name), 0)
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}; give a number from {low:g} to {high:g}.")
        if not 0.0 < self.learning_rate <= LARGEST_RATE:
            raise InputError(
                f"learning_rate is {self.learning_rate}; give a number above 0, at most {LARGEST_RATE:g}."
            )
        _only(self, "warmup", self.schedule == "one-cycle", f"schedule is {self.schedule!r}")
        if self.warmup is not None and not 0.0 <= self.warmup < 1.0:
            raise InputError(f"warmup is {self.warmup}; give a share from 0 to below 1.")
        self._check_smoothing()
        if self.accumulation > self.batch_size:
            raise InputError(
                f"accumulation is {self.accumulation} with batch_size {self.batch_size}; a part needs an image."
            )
        self._check_selection()

    def _check_smoothing(self) -> None:
        smooths = self.loss_class.smooths_labels
        if self.label_smoothing is None:
            object.__setattr__(self, "label_smoothing", 0.1 if smooths else 0.0)
        if self.label_smoothing and not smooths:
            raise InputError(
                f"label_smoothing is {self.label_smoothing}, and the loss {LOSSES.name_of(type(self.loss))!r} has "
                "none; leave it out or give 0."
            )
        if not 0.0 <= self.label_smoothing < 1.0:  # type: ignore[operator]
            raise InputError(f"label_smoothing is {self.label_smoothing}; give a number from 0 to below 1.")

    def _check_selection(self) -> None:
        if self.needs_validation and not self.validation_images:
            raise InputError(
                "choosing weights, stopping early and fast adversarial training look at held-out images; "
                "set train.validation_images above 0."
            )
        if self.loss_class.views > 1 and self.augment.policy == "none":
            raise InputError(
                f"the loss {LOSSES.name_of(type(self.loss))!r} compares augmented views; set train.augment.policy: "
                "augmix."
            )
        if self.select.robust_images is not None and not self.measures_robustness:
            raise InputError("select.robust_images is set, and nothing is attacked; set select.by: robust.")
        if self.select.largest_drop is not None and not self.loss_class.may_collapse:
            raise InputError(
                "select.largest_drop is set, and only losses of one attack step look at it; leave it out."
            )

    @property
    def loss_class(self) -> Any:
        """The class of the loss, with what it needs as attributes; see ``train.losses.Loss``."""
        return LOSSES.of(self.loss)

    @property
    def needs_validation(self) -> bool:
        """Whether the recipe looks at held-out images."""
        return self.select.keep == "best" or self.select.patience > 0 or self.measures_robustness

    @property
    def measures_robustness(self) -> bool:
        """Whether held-out images are attacked after each epoch."""
        return self.select.by == "robust" or self.loss_class.may_collapse


def filled(value: T | None) -> T:
    """Return the value of a setting that is used, and therefore filled in."""
    if value is None:
        raise InputError("a setting of the recipe is missing that its augmentation uses.")
    return value


def _only(section: Any, name: str, used: bool, why: str) -> None:
    """Fill in the default of a setting where it is used; refuse one that would be ignored."""
    value = getattr(section, name)
    if used and value is None:
        object.__setattr__(section, name, section.FILLED[name])
    elif not used and value is not None:
        raise InputError(f"{name} is {value}, and {why}: it would be ignored; leave it out.")


def _share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} is {value}; give a share from 0 to 1.")
