"""How a classifier is trained: the recipe and its sections, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .errors import InputError


@dataclass(frozen=True)
class LossConfig:
    """What is minimised; the papers are named in ``train.losses``, ``train.adversarial`` and ``train.trades``.

    Attributes:
        name: "standard", "jsd" (AugMix's consistency), "pgd" (Madry), "fast" (one step from a random start),
            "trades" or "mart".
        threat: Norm and radius of adversarial training, e.g. "linf 8/255" or "l2 0.5".
        steps: Gradient steps of the attack in training; "fast" takes one.
        step_size: Length of a step in pixels; null takes 1.25 epsilon for "fast", epsilon / 4 for the others.
        beta: Weight of the second term of "trades", "mart" and "jsd".
        gradient_mode: How the attack's gradient passes the front-end; null takes the layer's own.
    """

    name: Literal["standard", "jsd", "pgd", "fast", "trades", "mart"] = "standard"
    threat: str = "linf 8/255"
    steps: int = 10
    step_size: float | None = None
    beta: float = 6.0
    gradient_mode: Literal["unroll", "implicit"] | None = None

    def __post_init__(self) -> None:
        _at_least("loss.steps", self.steps, 1)
        if self.step_size is not None and not self.step_size > 0.0:
            raise InputError(f"loss.step_size is {self.step_size}; give a number above 0, or null.")
        if not self.beta >= 0.0:
            raise InputError(f"loss.beta is {self.beta}; give 0 or more.")

    @property
    def adversarial(self) -> bool:
        """Whether this loss attacks the model."""
        return self.name in ("pgd", "fast", "trades", "mart")


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation beyond crop and flip.

    Attributes:
        lam_spread: Each image's lam in an LCA front-end is multiplied by a factor drawn log-uniformly from 1 to this;
            1 switches it off. With ``model.adaptive_lam`` the classifier then knows the codes of noisy images.
        smallest_area: Each image is cut out at random, at least this share of its area (0.08 is usual on ImageNet) and
            between 3:4 and 4:3 in shape, and scaled to the size of the set; 1 switches it off. Images on disk are
            cut out of the whole picture. Usual without shifts, ``train.crop_padding: 0``.
        noise: Largest standard deviation of Gaussian noise, in pixels of [0, 1]; each noisy image draws its
            own between 0 and this. 0 switches it off.
        noise_share: Share of the images that get noise.
        policy: "none", "augmix" or "randaugment", drawn for each image by itself.
        severity: AugMix's severity, or RandAugment's magnitude in thirtieths.
        width: AugMix's number of chains.
        operations: RandAugment's operations on an image.
        workers: Processes that read images from disk, cut them out and apply the policy ahead of the training loop;
            0 does so within the step, as do runs that are trained several at once. The images are the same.
    """

    lam_spread: float = 1.0
    smallest_area: float = 1.0
    noise: float = 0.0
    noise_share: float = 0.5
    policy: Literal["none", "augmix", "randaugment"] = "none"
    severity: int = 3
    width: int = 3
    operations: int = 2
    workers: int = 0

    def __post_init__(self) -> None:
        if not 1.0 <= self.lam_spread < float("inf"):
            raise InputError(f"augment.lam_spread is {self.lam_spread}; give 1 (off) or more.")
        if not 0.0 < self.smallest_area <= 1.0:
            raise InputError(
                f"augment.smallest_area is {self.smallest_area}; give a share above 0, or 1 (off)."
            )
        if not self.noise >= 0.0:
            raise InputError(f"augment.noise is {self.noise}; give 0 or more.")
        _share("augment.noise_share", self.noise_share)
        _at_least("augment.width", self.width, 1)
        _at_least("augment.operations", self.operations, 1)
        _at_least("augment.workers", self.workers, 0)
        largest = 10 if self.policy == "augmix" else 30
        if not 1 <= self.severity <= largest:
            raise InputError(f"augment.severity is {self.severity}; give 1 to {largest}.")


@dataclass(frozen=True)
class AverageConfig:
    """An average of the weights, which is then what is validated and handed over.

    Attributes:
        kind: "none", "ema" (exponential) or "swa" (equal weights over the last part of training).
        decay: The exponential average's memory of its past at each step.
        start: Share of the steps after which "swa" begins.
    """

    kind: Literal["none", "ema", "swa"] = "none"
    decay: float = 0.999
    start: float = 0.75

    def __post_init__(self) -> None:
        _share("average.decay", self.decay)
        _share("average.start", self.start)


@dataclass(frozen=True)
class AnnealConfig:
    """The front-end's settings over the first part of training, moving to those of the model.

    Attributes:
        lam_factor: lam starts at this many times the model's and falls geometrically; 1 keeps it.
        iterations: Cycles at the start, moving linearly to the model's; null keeps them.
        share: Share of the steps after which the model's own settings hold.
    """

    lam_factor: float = 1.0
    iterations: int | None = None
    share: float = 0.5

    def __post_init__(self) -> None:
        if not self.lam_factor > 0.0:
            raise InputError(f"anneal.lam_factor is {self.lam_factor}; give a number above 0.")
        _share("anneal.share", self.share)
        if self.iterations is not None:
            _at_least("anneal.iterations", self.iterations, 1)


@dataclass(frozen=True)
class SelectConfig:
    """Which weights are handed over, and when to stop; measured on the held-out training images only.

    Attributes:
        keep: "last", or "best" of all epochs (Rice, Wong and Kolter, ICML 2020).
        by: What is best: "accuracy" on clean images, or "robust" accuracy under PGD-10 of the loss's threat.
        patience: Stop after so many epochs without a better one; 0 never stops.
        robust_images: Held-out images that are attacked after each epoch.
        largest_drop: Stop "fast" training when robust accuracy falls this far below its best, or to a quarter of it:
            catastrophic overfitting (Wong, Rice and Kolter, ICLR 2020).
    """

    keep: Literal["last", "best"] = "last"
    by: Literal["accuracy", "robust"] = "accuracy"
    patience: int = 0
    robust_images: int = 256
    largest_drop: float = 0.2

    def __post_init__(self) -> None:
        _at_least("select.patience", self.patience, 0)
        _at_least("select.robust_images", self.robust_images, 1)
        _share("select.largest_drop", self.largest_drop)


@dataclass(frozen=True)
class TrainConfig:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training images, frozen ones included.
        frozen_epochs: First epochs in which the LCA front-end is kept as it is; null for all of them.
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
        keep_states: Saved states kept; older ones are deleted.
        accumulation: Parts of each batch, computed one after the other: less memory for the same step.
        compile: Whether ``torch.compile`` compiles the classifier.
        sync_norm: On GPUs, whether batch norm sees the batches of all processes together.
        log_steps: Steps between readings of the figures that gather on the device.
        loss: What is minimised.
        augment: Augmentation beyond crop and flip.
        average: An average of the weights.
        anneal: The front-end's lam and cycles over training.
        select: Which weights are handed over, and when to stop early.
    """

    epochs: int = 10
    frozen_epochs: int | None = 0
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
    keep_states: int = 2
    accumulation: int = 1
    compile: bool = False
    sync_norm: bool = True
    log_steps: int = 10
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    anneal: AnnealConfig = field(default_factory=AnnealConfig)
    select: SelectConfig = field(default_factory=SelectConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "keep_states", "accumulation", "log_steps"):
            _at_least(name, getattr(self, name), 1)
        if not 0 <= self.epochs_frozen <= self.epochs:
            raise InputError(
                f"frozen_epochs is {self.frozen_epochs}; give 0 to epochs ({self.epochs}), or null for all of them."
            )
        if not self.learning_rate > 0.0:
            raise InputError(f"learning_rate is {self.learning_rate}; give a number above 0.")
        if not 0.0 <= self.warmup < 1.0:
            raise InputError(f"warmup is {self.warmup}; give a share from 0 to below 1.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(f"label_smoothing is {self.label_smoothing}; give a number from 0 to below 1.")
        if self.accumulation > self.batch_size:
            raise InputError(
                f"accumulation is {self.accumulation} with batch_size {self.batch_size}; a part needs an image."
            )
        self._check_selection()

    def _check_selection(self) -> None:
        if self.needs_validation and not self.validation_images:
            raise InputError(
                "choosing weights, stopping early and fast adversarial training look at held-out images; "
                "set train.validation_images above 0."
            )
        if self.loss.name == "jsd" and self.augment.policy == "none":
            raise InputError('the loss "jsd" compares augmented views; set train.augment.policy: augmix.')

    @property
    def epochs_frozen(self) -> int:
        """Number of epochs in which the front-end is kept as it is."""
        return self.epochs if self.frozen_epochs is None else self.frozen_epochs

    @property
    def needs_validation(self) -> bool:
        """Whether the recipe looks at held-out images."""
        return self.select.keep == "best" or self.select.patience > 0 or self.measures_robustness

    @property
    def measures_robustness(self) -> bool:
        """Whether held-out images are attacked after each epoch."""
        return self.select.by == "robust" or self.loss.name == "fast"


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value}; give at least {least}.")


def _share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} is {value}; give a share from 0 to 1.")
