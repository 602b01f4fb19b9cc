"""The contract of front-ends: what stands between pixels and what comes next.

A front-end is made from one frozen dataclass of settings and registered by name::

    @register_frontend("gabor")
    class Gabor(Frontend):
        Settings = GaborSettings
        ...

Classifiers, training, checkpoints, evaluation, attacks, reports and exports know front-ends by this contract alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor, nn

from ..configs.errors import InputError, at_least
from ..configs.extensions import FRONTENDS
from ..configs.load import from_dict

HandsOn = Literal["features", "images"]


@dataclass(frozen=True)
class Encoding:
    """Results of one forward pass of a front-end; subclasses hold more.

    Attributes:
        output: Features (N, out_channels, h, w), or images (N, C, H, W) in pixel range.
    """

    output: Tensor

    def figures(self) -> dict[str, Tensor]:
        """Return what is known of each image, (N,) each, under the names of ``Frontend.figure_names``."""
        return {}

    def pictures(self) -> dict[str, Tensor]:
        """Return what people would look at: images (N, C, H, W) in pixel range, or maps (N, h, w)."""
        return {}


@dataclass(frozen=True)
class FrontendTraining:
    """Settings of a front-end's training; the keys of ``train.frontend``.

    Attributes:
        frozen_epochs: First epochs in which its weights stay as they are; None for all of them.
        rate: Factor on the learning rate of its weights.
    """

    frozen_epochs: int | None = 0
    rate: float = 1.0

    def check(self, epochs: int) -> None:
        """Refuse settings that do not fit a run of so many epochs.

        Raises:
            InputError: What came, what was expected.
        """
        if self.frozen_epochs is not None and not 0 <= self.frozen_epochs <= epochs:
            raise InputError(
                f"train.epochs is {epochs} and train.frontend.frozen_epochs {self.frozen_epochs}, more than there are; "
                "add train.frontend.frozen_epochs=0 (or up to as many; null freezes the front-end in all of them)."
            )
        if not 0.0 <= self.rate <= 1e6:
            raise InputError(f"train.frontend.rate is {self.rate}; give 0 to a million.")
        if self.frozen_epochs is None:
            self._only_default("rate")

    def _only_default(self, name: str) -> None:
        """Refuse a setting of learning weights where they never learn."""
        if getattr(self, name) != getattr(type(self), name):
            raise InputError(
                f"train.frontend.{name} is {getattr(self, name)}, and frozen_epochs: null lets nothing learn; leave "
                "one of them out."
            )

    def auxiliary_weights(self) -> dict[str, float]:
        """Return the weight of each of the front-end's auxiliary losses, by name."""
        return {}


@dataclass(frozen=True)
class NoTraining:
    """The ``Training`` of a front-end without weights: there is nothing to set."""

    def check(self, epochs: int) -> None:
        """Accept any run."""

    def auxiliary_weights(self) -> dict[str, float]:
        """Return nothing."""
        return {}


class Setting:
    """An attribute of a front-end that reads and changes its settings, which check themselves anew."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, frontend: Frontend | None, owner: type | None = None) -> Any:
        return self if frontend is None else getattr(frontend._settings, self.name)

    def __set__(self, frontend: Frontend, value: Any) -> None:
        frontend._settings = frontend.changed(replace(frontend._settings, **{self.name: value}))


class Frontend(nn.Module, ABC):
    """Maps pixels in [0, 1], (N, C, H, W), to features or to images.

    Subclasses name their settings and write ``encode``. Kind and channels of the output follow from the settings
    ``in_channels``, ``features`` and ``stride`` where there are such; else override the properties.

    Args:
        settings: All that YAML sets and a checkpoint keeps; or give its fields as keywords.

    Attributes:
        Settings: The frozen dataclass of settings.
        origin: Names of settings that only say where weights come from, which is no part of a network's fingerprint.
        Training: What ``train.frontend`` may set of it: its fields, their defaults and ``check``.
        figure_names: Names of the figures of each image that its encodings hold.
        damage: Definition of the damage that opens the gate, and where its estimate fails, in words; empty without a
            gate.
        always_learns: Whether every parameter gets a gradient in every step while it learns.
        learns_statistics: Whether statistics over images (other than batch norm's) move in training mode; attacks
            inside training and SWA leave them unchanged.
    """

    Settings: ClassVar[type]
    Training: ClassVar[type] = FrontendTraining
    origin: ClassVar[tuple[str, ...]] = ()
    damage: ClassVar[str] = ""
    always_learns: ClassVar[bool] = True

    def __init__(self, settings: Any = None, **options: Any) -> None:
        super().__init__()
        if settings is None:
            settings = from_dict(self.Settings, options, where=type(self).__name__)
        elif options:
            raise InputError(
                f"{type(self).__name__} got settings and {next(iter(options))}={next(iter(options.values()))!r} beside "
                "them; give one or the other."
            )
        elif not isinstance(settings, self.Settings):
            raise InputError(
                f"{type(self).__name__} got {settings!r}; expected its settings, {self.Settings.__name__}(...), or "
                "keywords."
            )
        for name in ("in_channels", "features", "kernel_size", "stride"):
            at_least(f"{name} of {type(self).__name__}", getattr(settings, name, 1), 1)
        self._settings = settings
        self._learnable: list[nn.Parameter] | None = None
        self.learns_statistics = True

    @property
    def settings(self) -> Any:
        """The settings as they are now."""
        return self._settings

    def changed(self, settings: Any) -> Any:
        """Return the settings that a built front-end takes on; override to refuse what weights decide.

        Raises:
            InputError: If they cannot be changed any more.
        """
        return settings

    @property
    def sections(self) -> tuple[Any, ...]:
        """The settings of each front-end in order: those of this one, or of all in a chain."""
        return (self.settings,)

    @property
    def hands_on(self) -> HandsOn:
        """The kind of output: "features", or "images", whose pixels may leave [0, 1] a little."""
        return "images"

    @property
    def in_channels(self) -> int:
        """Channels of the images that it takes."""
        return getattr(self._settings, "in_channels", 3)

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self._settings.features if self.hands_on == "features" else self.in_channels

    @property
    def stride(self) -> int:
        """Pixels of the image for each position of the output, along a side; features have ceil(H / stride) rows."""
        return self._settings.stride if self.hands_on == "features" else 1

    @property
    def figure_names(self) -> tuple[str, ...]:
        """Names of the figures of each image that its encodings hold."""
        return ()

    @abstractmethod
    def encode(self, images: Tensor) -> Encoding:
        """Run the front-end and keep what is known on the way.

        Args:
            images: (N, C, H, W), pixels in [0, 1]; output of another front-end may leave it a little.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Return the output, for images (N, C, H, W) in [0, 1]."""
        return self.encode(images).output

    def auxiliary_losses(self, encoding: Encoding) -> dict[str, Tensor]:
        """Return losses of its own by name, scalars; ``Training.auxiliary_weights`` must name a weight for each."""
        return {}

    def at(self, epoch: float | None, epochs: int, training: Any) -> None:
        """Set what depends on how far training is, before each step; it never waits for the device.

        Args:
            epoch: Epochs done, a fraction within an epoch; None when the model is measured or saved.
            epochs: Length of the run.
            training: The ``Training`` of its class.
        """
        frozen = getattr(training, "frozen_epochs", 0)
        if self._learnable is None:  # what its author holds fixed stays so
            self._learnable = [weight for weight in self.parameters() if weight.requires_grad]
        if epoch is not None:
            for weight in self._learnable:
                weight.requires_grad_(frozen is not None and epoch >= frozen)

    def refresh(self) -> None:
        """Bring up to date what follows from the weights, after these were changed from outside."""

    def no_weight_decay(self) -> set[str]:
        """Names of its parameters that are not decayed; those of one dimension never are."""
        return set()

    def atoms(self) -> Tensor | None:
        """Return its patterns (M, C, k, k) for people to look at; None without any."""
        return None

    def margins(self, images: Tensor) -> Tensor | None:
        """Return by how much each hard decision is taken, (N, decisions in order, units); None without hard decisions.

        The sign is the decision. Where two backends differ by more than rounding, the first difference of signs shows
        whether a decision that was nearly even is why.
        """
        return None


F = TypeVar("F", bound=type[Frontend])


def register_frontend(name: str) -> Callable[[F], F]:
    """Register a class under a name, by which configurations and checkpoints know it.

    Raises:
        InputError: If another class has this name or these settings, or the class breaks the contract.
    """

    def register(cls: F) -> F:
        settings = getattr(cls, "Settings", None)
        if not issubclass(cls, Frontend) or not is_dataclass(settings):
            raise InputError(
                f"front-end {name!r}: {cls.__name__} must derive from Frontend, and its Settings be a frozen dataclass."
            )
        if "name" in (field.name for field in fields(settings)):
            raise InputError(f"front-end {name!r}: a setting cannot be called 'name'; choose another word.")
        if not issubclass(cls.Training, FrontendTraining | NoTraining):
            raise InputError(
                f"front-end {name!r}: {cls.Training.__name__} must derive from FrontendTraining or NoTraining."
            )
        for known, other in FRONTENDS.registered().items():
            if known != name and other.Settings is settings:
                raise InputError(
                    f"front-end {name!r} has the Settings of {known!r}; derive a dataclass of its own, by which "
                    "checkpoints distinguish them."
                )
        FRONTENDS.add(name, cls)
        return cls

    return register
