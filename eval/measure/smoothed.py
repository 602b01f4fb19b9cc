"""One smoothed classifier on its way through the images: sampled look by look, attacked, its rows saved."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...attacks import SmoothAdv
from ...attacks.checks import NotApplicable
from ...configs.errors import InputError, at_least
from ...configs.execution import Deadline
from ...data import ImageDataset
from ..results.certificates import Bracket, StoredImages, read_back
from ..results.records import (
    BOUND,
    CERTIFICATE,
    COMPLETE,
    SMOOTHED_ATTACK,
    TF32_NOTE,
    CellResult,
    Condition,
    Entry,
    ImageSet,
    cell_key,
    choose_images,
)
from ..results.store import ResultsStore

if TYPE_CHECKING:
    from ...models.smoothing.classifier import SmoothedClassifier
    from ...models.smoothing.statistics import SamplingPlan
    from ...models.smoothing.votes import Votes

_SAVE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class CertificationPlan:
    """The certificates to compute for smoothed classifiers, and the attack on them.

    Attributes:
        sigma: Standard deviations of the noise in pixels; each gives another smoothed classifier.
        samples: Noisy copies of each image, fixed beforehand, or the numbers at planned looks, which share the failure
            probability of 0.001: with a budget, all images come to the first look before any goes on.
        images: Images at most, the first of the class-balanced choice that ``evaluate`` makes; 0 or None means all.
        seed: Seed of the choice of images and of all noise.
        attack: The attack on the smoothed classifier; None leaves it out.
        radii: L2 radii, in pixels, of the rows; those that the samples cannot prove even if all agree are left out.
        clip: Clip noisy copies to [0, 1], for models that take no others.
        tell: Give front-ends with adaptive lambda the true sigma in place of their estimate.
        batch_size: Most noisy copies in one pass.
        share: Number of this process and of all: only its share of the images is certified, and no row is saved. A call
            without a share then finds the votes of all.
    """

    sigma: float | Sequence[float]
    samples: int | Sequence[int] = 10_000
    images: int | None = 500
    seed: int = 0
    attack: SmoothAdv | None = SmoothAdv()  # noqa: RUF009 - frozen
    radii: Sequence[float] = (0.25, 0.5, 0.75, 1.0)
    clip: bool = False
    tell: bool = False
    batch_size: int = 100
    share: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        at_least("images", self.images or 0, 0)
        if not self.sigmas:
            raise InputError("sigma is empty; give at least one number, such as 0.25.")

    @property
    def sigmas(self) -> list[float]:
        """The standard deviations, each once."""
        return list(dict.fromkeys([self.sigma] if isinstance(self.sigma, int | float) else self.sigma))

    def order(self, labels: NDArray[np.integer]) -> NDArray[np.intp]:
        """Positions of the images to certify, in order."""
        order = choose_images(labels, self.images, self.seed)
        return order if self.share is None else order[self.share[0] :: self.share[1]]


@dataclass(kw_only=True)
class SmoothedRun:
    """One smoothed classifier on its way through the images."""

    smoothed: SmoothedClassifier
    plan: CertificationPlan
    sampling: SamplingPlan
    dataset: ImageDataset
    order: NDArray[np.intp]
    store: ResultsStore
    entry: Entry
    fingerprint: str
    device: torch.device
    deadline: Deadline
    tf32: bool
    radii: tuple[float, ...] = ()
    seconds: float = 0.0
    not_attacked: str = ""
    votes: dict[int, Votes] = field(default_factory=dict)
    attacked: dict[int, tuple[float, int]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Check the model, keep the radii within reach, and read what earlier runs found."""
        from ...models.smoothing.statistics import radius_of
        from ...models.smoothing.votes import Votes

        first, _ = self.dataset.tensors(self.order[:8], self.device)
        classes = self.smoothed.check(first, self.plan.seed)
        if classes != len(self.dataset.class_names):
            raise InputError(
                f"the model has {classes} classes, the data set {len(self.dataset.class_names)}; give images that the "
                "model was trained for."
            )
        reach = radius_of(self.sampling.largest_bound, self.smoothed.sigma)
        self.radii = tuple(radius for radius in sorted(set(self.plan.radii)) if 0.0 < radius <= reach)
        with read_back("the votes of an image"):
            self.votes = {
                image: Votes.from_text(text) for image, text in self._stored("votes").load().items()
            }
        if self.plan.attack is not None and self.radii:
            found = self._stored(self._attack_settings).load()
            with read_back("the attacks on an image"):
                self.attacked = {image: _attacked(text) for image, text in found.items()}

    def passes_left(self) -> int:
        """Largest number of passes of the base classifier that are left to do."""
        per_image = self.sampling.selection + self.sampling.looks[-1]
        sampling = sum(
            0
            if found is not None and found.finished(self.sampling)
            else per_image - (found.samples if found else 0)
            for found in (self.votes.get(index) for index in self._indices)
        )
        if self.plan.attack is None or not self.radii:
            return sampling
        return sampling + self.plan.attack.passes(len(self.radii)) * sum(
            index not in self.attacked for index in self._indices
        )

    def passes_per_second(self) -> float:
        """Passes a second on a batch of noisy copies."""
        image, _ = self.dataset.tensors(self.order[:1], self.device)
        copies = image.repeat(self.smoothed.batch_size, 1, 1, 1)
        with torch.no_grad():
            start = time.perf_counter()
            self.smoothed.logits(copies).argmax(dim=1).cpu()
        return len(copies) / (time.perf_counter() - start)

    def sample(self, look: int, done: Callable[[], object]) -> None:
        """Bring every image to a planned look."""
        stored = self._stored("votes")
        for index, image, label in self._images():
            if self.deadline.over:
                return
            start = saved = time.monotonic()
            votes = self.votes.get(index)
            if votes is None:
                votes = self.smoothed.select(image, self.sampling, self.plan.seed, label)
                stored.save(index, votes.to_text())
            unsaved = False
            for votes in self.smoothed.extend(image, votes, self.sampling, self.plan.seed, looks=look):  # noqa: B020
                unsaved = True
                if self.deadline.over:
                    break
                if time.monotonic() - saved > _SAVE_SECONDS:
                    stored.save(index, votes.to_text())
                    saved, unsaved = time.monotonic(), False
            if unsaved:
                stored.save(index, votes.to_text())
            self.votes[index] = votes
            self.seconds += time.monotonic() - start
            done()

    def attack_in_turn(self, done: Callable[[int], object]) -> None:
        """Attack the images in order, batch by batch."""
        if self.plan.attack is None or not self.radii:
            return
        stored = self._stored(self._attack_settings)
        size = max(self.plan.attack.batch_size // self.plan.attack.copies, 1)
        for start in range(0, len(self.order), size):
            batch = self.order[start : start + size]
            todo = [p for p in batch if int(self.dataset.indices[p]) not in self.attacked]
            if self.deadline.over:
                return
            if todo:
                images, labels = self.dataset.tensors(np.asarray(todo), self.device)
                try:
                    found = self.plan.attack(self.smoothed, images, labels, self.radii, seed=self.plan.seed)
                except NotApplicable as error:
                    self.not_attacked = f"Not attacked: {error}"
                    return
                for position, radius, prediction in zip(todo, found.radius, found.prediction, strict=True):
                    index = int(self.dataset.indices[position])
                    self.attacked[index] = (float(radius), int(prediction))
                    stored.save(index, json.dumps(self.attacked[index]))
            done(len(batch))

    def save_cells(self) -> Iterator[tuple[str | int, ...]]:
        """Save a row for radius 0 and for each other, proven and attacked, of the images that were reached."""
        begun = {index for index, votes in self.votes.items() if votes.stopped or votes.hits}
        sampled = self._reached(begun.__contains__)
        if not len(sampled):
            raise InputError("the budget ended before the first image was certified; give more minutes.")
        whole = len(sampled) == len(self.order) and all(v.finished(self.sampling) for v in self._of(sampled))
        proven = np.array(
            [votes.certificate(self.sampling, self.smoothed.sigma) for votes in self._of(sampled)]
        )
        shares = np.array([_share(votes) for votes in self._of(sampled)])
        labels = self.dataset.labels[sampled]
        met = self._reached(self.attacked.__contains__)
        for radius in (0.0, *self.radii):
            predictions = np.where((proven[:, 1] >= radius) & (proven[:, 0] >= 0), proven[:, 0], -1)
            details = "" if radius else self._bracket(proven, labels, met[: len(sampled)])
            status = COMPLETE if whole else BOUND
            yield self._save(CERTIFICATE, radius, sampled, predictions, shares, status, details)
        if not len(met):
            return
        found = np.array([self.attacked[int(self.dataset.indices[p])] for p in met])
        for radius in (0.0, *self.radii):
            predictions = np.where(found[:, 0] <= radius, found[:, 1], self.dataset.labels[met])
            status = COMPLETE if len(met) == len(self.order) else BOUND
            yield self._save(SMOOTHED_ATTACK, radius, met, predictions, np.zeros(len(met)), status, "")

    def _bracket(self, proven: NDArray[np.float64], labels: NDArray[np.int64], met: NDArray[np.intp]) -> str:
        radii = np.where(proven[:, 0] == labels, proven[:, 1], -1.0)
        attacked = [self.attacked[int(self.dataset.indices[p])][0] for p in met]
        return Bracket(
            self.smoothed.sigma,
            self.sampling.looks,
            self.sampling.failure,
            radii.round(6).tolist(),
            [radius if np.isfinite(radius) else None for radius in attacked],
        ).to_text()

    def _save(
        self,
        kind: str,
        radius: float,
        positions: NDArray[np.intp],
        predictions: NDArray[np.float64],
        confidences: NDArray[np.float64],
        status: str,
        details: str,
    ) -> tuple[str | int, ...]:
        threat = f"l2 {radius:g}" if radius else ""
        condition = Condition(kind, self.condition_name, threat=threat)
        image_set = ImageSet(
            self.dataset.name,
            self.dataset.fingerprint,
            self.dataset.indices[positions].astype(np.int32),
            self.dataset.labels[positions].astype(np.int16),
        )
        cell = CellResult(
            self.entry.name,
            self.entry.seed,
            self.fingerprint,
            condition,
            image_set,
            self.plan.seed,
            predictions.astype(np.int16),
            confidences,
            seconds=0.0 if radius else self.seconds,
            notes=" ".join(filter(None, [TF32_NOTE if self.tf32 else "", self.not_attacked])),
            status=status,
            details=details,
        )
        self.store.save(cell)
        return tuple(
            cell_key(self.entry.name, self.entry.seed, condition, image_set, self.plan.seed).values()
        )

    @property
    def condition_name(self) -> str:
        """The noise and the number of samples in words, e.g. "sigma 0.25, 10000 samples"."""
        noise = ["told"] * self.smoothed.tell + ["clipped"] * self.smoothed.clip
        samples = "/".join(str(look) for look in self.sampling.looks)
        return ", ".join([f"sigma {self.smoothed.sigma:g}", f"{samples} samples", *noise])

    @property
    def _indices(self) -> list[int]:
        return [int(self.dataset.indices[position]) for position in self.order]

    @property
    def _attack_settings(self) -> str:
        return f"{self.plan.attack} at {list(self.radii)}"

    def _of(self, positions: NDArray[np.intp]) -> list[Votes]:
        return [self.votes[int(self.dataset.indices[position])] for position in positions]

    def _reached(self, known: Callable[[int], bool]) -> NDArray[np.intp]:
        """The first images in order of which something is known; a prefix, so that the choice stays balanced."""
        flags = np.array([known(index) for index in self._indices])
        return self.order[: len(flags) if flags.all() else int(flags.argmin())]

    def _images(self) -> Iterator[tuple[int, Tensor, int]]:
        for index, position in zip(self._indices, self.order, strict=True):
            images, labels = self.dataset.tensors(np.asarray([position]), self.device)
            yield index, images[0], int(labels[0])

    def _stored(self, what: str) -> StoredImages:
        smoothed = self.smoothed
        settings = {"sigma": smoothed.sigma, "clip": smoothed.clip, "tell": smoothed.tell, "what": what}
        settings |= {} if what != "votes" else vars(self.sampling)
        settings |= {"tf32": True} if self.tf32 else {}
        key = (
            *(self.entry.name, self.entry.seed, self.fingerprint),
            *(self.dataset.fingerprint, self.plan.seed),
        )
        return self.store.images((*key, json.dumps(settings)))


def _attacked(text: str) -> tuple[float, int]:
    radius, prediction = json.loads(text)
    return float(radius), int(prediction)


def _share(votes: Votes) -> float:
    return votes.counts[votes.guess] / votes.samples if votes.samples else 0.0
