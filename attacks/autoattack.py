"""AutoAttack (Croce and Hein, ICML 2020), its versions and each of its parts, through pyautoattack.

Square (Andriushchenko et al., ECCV 2020) is padded where its l2 and l1 starts cannot tile an image.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor
from torch.nn import functional

from ..configs.errors import InputError, unknown_name
from .access import CountingModel
from .checks import NotApplicable
from .interface import BLACK_BOX, PLAIN_GRADIENTS, RANDOM_NOTE, Attack, forward
from .threat import ThreatModel

if TYPE_CHECKING:
    from pyautoattack import AutoAttack as Library
    from pyautoattack.square import SquareAttack


TILES = 5
"""The l2 and l1 starts lay this many tiles along the height."""


def tiles_fit(height: int, width: int) -> bool:
    """Whether pyautoattack 0.2.0 can lay its start pattern on images of this size.

    Its tile side and offset come from the height alone; a tile cut by the border is a shape error.
    """
    side, offset = height // TILES, height % TILES // 2
    if side == 0:
        return False
    return side == 1 or all(offset + length // side * side <= length for length in (height, width))


class PaddedSquare:
    """Square on zero-padded squares that the model sees cropped.

    The part of the perturbation that falls on the padding is lost, so the rest lies inside the ball:
    slightly weaker than on a size that fits, never out of bounds.

    Attributes:
        seed: Set by the library before each call.
        n_queries: Largest number of queries, as in the library.
    """

    def __init__(self, inner: SquareAttack) -> None:
        self._inner = inner
        self._model = inner.predict
        self.seed = inner.seed

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """Attack (N, C, H, W) images of any size."""
        height, width = x.shape[2:]
        side = -(-max(height, width) // TILES) * TILES
        padded = functional.pad(x, (0, side - width, 0, side - height))
        self._inner.seed = self.seed
        self._inner.predict = lambda images: self._model(images[:, :, :height, :width])
        found = self._inner.perturb(padded, y)
        return found[:, :, :height, :width].contiguous()


Version = Literal["standard", "plus", "rand"]

VERSIONS: tuple[str, ...] = get_args(Version)

STANDARD_PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")

PLUS_PARTS = ("apgd-dlr", "fab")

CLASSES_NEEDED = {"apgd-dlr": 3, "apgd-t": 4}
"""The losses divide by differences of sorted logits that fewer classes do not have."""

_NORMS: dict[str, Any] = {"linf": "Linf", "l2": "L2", "l1": "L1"}

_LOGGER = "auto-attack"


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """A version of AutoAttack, or one of its parts with the restarts it has in the standard suite.

    Attributes:
        version: ``"standard"``, ``"plus"`` or ``"rand"`` (for random models).
        part: One part alone: ``"apgd-ce"``, ``"apgd-t"``, ``"fab-t"``, ``"square"`` as in the standard
            version, ``"apgd-dlr"`` and ``"fab"`` as in plus; ``None`` runs the version.
        square_queries: Queries per image of the part Square.
        target_classes: Most classes that the targeted parts aim at, likeliest first.
    """

    version: Version = "standard"
    part: str | None = None
    square_queries: int = 5000
    target_classes: int = 9

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise unknown_name("AutoAttack version", self.version, VERSIONS)
        if self.part is not None and self.part not in STANDARD_PARTS + PLUS_PARTS:
            raise unknown_name("AutoAttack part", self.part, STANDARD_PARTS + PLUS_PARTS)
        if self.square_queries < 1 or self.target_classes < 1:
            raise InputError(
                f"square_queries={self.square_queries}, target_classes={self.target_classes}; "
                "expected at least 1 each."
            )

    @property
    def kind(self) -> str:
        """Black box for Square alone; a version, most of whose parts follow the gradient, counts as plain gradients."""
        return BLACK_BOX if self.part == "square" else PLAIN_GRADIENTS

    @property
    def needs_repeatable_model(self) -> bool:
        """True of the parts that follow gradients: the rand version averages them over calls."""
        return self.part not in (None, "square")

    @property
    def uses_gradients(self) -> bool:
        """False for Square alone."""
        return self.part != "square"

    def run(
        self,
        model: CountingModel,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        seed: int,
        batch_size: int,
    ) -> Tensor:
        """Run the library and pass its own warnings on as notes."""
        from pyautoattack import AutoAttack as Library

        classes = forward(model, images[:1], 1).shape[1]
        library = Library(
            model,
            norm=_NORMS[threat.norm],
            eps=threat.epsilon,
            seed=seed,
            version=self._library_version(model),
            device=images.device,
        )
        model.tally.notes += self._choose_parts(library, classes)
        if threat.norm != "linf" and not tiles_fit(*images.shape[2:]):
            library.square = PaddedSquare(library.square)  # pyright: ignore[reportAttributeAccessIssue]
        with _library_state() as warnings:
            adversarial, _ = library.run_standard_evaluation(images.float(), labels, batch_size=batch_size)
        model.tally.notes += warnings
        return adversarial.to(images.dtype)

    def _library_version(self, model: CountingModel) -> Version:
        if self.part is None and self.version != "rand" and RANDOM_NOTE in model.tally.notes:
            model.tally.notes.append(f"AutoAttack's rand version was used instead of {self.version}.")
            return "rand"
        return "plus" if self.part in PLUS_PARTS else self.version

    def _choose_parts(self, library: Library, classes: int) -> list[str]:
        """Set the parts, targets and queries; leave out, by name, what needs more classes."""
        wanted: list[Any] = [self.part] if self.part else list(library.attacks_to_run or ())
        possible = [part for part in wanted if classes >= CLASSES_NEEDED.get(part, 2)]
        if not possible:
            raise NotApplicable(
                f"{wanted[0]} needs {CLASSES_NEEDED[wanted[0]]} classes, the model has {classes}; "
                "use 'apgd-ce', 'fab-t' or 'square'."
            )
        library.attacks_to_run = possible
        most = min(self.target_classes, classes - 1)
        library.apgd_targeted.n_target_classes = min(library.apgd_targeted.n_target_classes, most)
        library.fab.n_target_classes = min(library.fab.n_target_classes, most)
        library.square.n_queries = self.square_queries
        return [
            f"{part} was left out: it needs {CLASSES_NEEDED[part]} classes, the model has {classes}."
            for part in wanted
            if part not in possible
        ]


@contextmanager
def _library_state() -> Iterator[list[str]]:
    """Collect the library's warnings and keep its global state out of ours.

    pyautoattack 0.2.0 switches off any tracer (coverage, debugger) and counts suspicious calls in a
    module-level table, so that one dynamic defence would mark every later model.
    """
    from pyautoattack import checks

    tracer = sys.gettrace()
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    collected = _Collector()
    logger = logging.getLogger(_LOGGER)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collected)
    try:
        yield collected.messages
    finally:
        logger.removeHandler(collected)
        logger.propagate = propagate
        sys.settrace(tracer)


class _Collector(logging.Handler):
    """Keeps warnings, without the library's pointer to a file that it does not ship."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append("AutoAttack: " + record.getMessage().split(" See flags_doc")[0].strip())
