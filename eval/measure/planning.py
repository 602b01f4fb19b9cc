"""From a plan to its cells and their images: names checked beforehand, corrupted images made ahead of the model."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...attacks import Suite, as_suite, as_threat
from ...configs.atomic import file_written_whole
from ...configs.errors import InputError, unknown_name
from ...configs.plan import EvaluationPlan
from ...data import (
    CORRUPTION_GROUPS,
    CORRUPTIONS,
    CorruptedFiles,
    ImageDataset,
    agreement,
    corrupt,
    open_cifar_c,
)
from ...data.corruptions.table import ALIASES
from ...data.corruptions.write import Manifest
from ..results.records import Condition, ImageSet, choose_images

GENERATOR = "generator"


class Cell(NamedTuple):
    """One condition on one choice of images, where these stand in the data set, and what attacks them."""

    condition: Condition
    image_set: ImageSet
    positions: NDArray[np.intp]
    suite: Suite | None = None


@dataclass(frozen=True, kw_only=True)
class CorruptionSource:
    """The source of corrupted images.

    Attributes:
        folder: Folder in the layout of CIFAR-10-C whose files are used instead of the generator; chains of several
            corruptions are generated all the same. The rows say which source was used.
        workers: Processes that make corrupted images ahead of the model.
        cache: Folder where generated images are kept for the next model; made if missing, never emptied.
    """

    folder: str | Path | None = None
    workers: int = 0
    cache: str | Path | None = None

    def open(self, plan: EvaluationPlan, dataset: ImageDataset) -> CorruptedFiles | None:
        """Open the files of every single corruption of a plan; None where all are generated.

        Raises:
            InputError: A file is missing or damaged, or belongs to another data set; or the plan needs none.
        """
        if self.folder is None:
            return None
        singles = [name for name in corruption_names(plan) if "+" not in name]
        if not singles:
            raise InputError(
                f"the evaluation plan measures no single corruption, so that nothing is read from {self.folder}; "
                "leave the folder out, or name corruptions in the plan."
            )
        return open_cifar_c(self.folder, names=singles, dataset=dataset)


def plan_cells(
    plan: EvaluationPlan,
    dataset: ImageDataset,
    files: CorruptedFiles | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
) -> list[Cell]:
    """All cells of a plan, cheapest kind first: clean, corruptions, attacks; doubles are dropped.

    Args:
        plan: The conditions to measure.
        dataset: The images.
        files: Corrupted images on disk; None generates them.
        surrogates: Other classifiers by name, in evaluation mode, whose adversarial images suites try as well.

    Raises:
        InputError: A name in the plan is unknown, an attack does not know the threat's norm, or the data set
            has no images or one twice.
    """
    if not len(dataset):
        raise InputError(f"data set {dataset.name!r} holds no images: nothing can be measured.")
    if len(np.unique(dataset.indices)) < len(dataset.indices):
        raise InputError(f"data set {dataset.name!r} holds an image twice: give each image its own index.")
    sets = {count: _image_set(dataset, count, plan.seed) for count in _counts(plan)}
    attacks = dict(_attacks(plan, surrogates))
    conditions = [(Condition("clean", "clean"), plan.clean_images)]
    conditions += [(condition, plan.corruption_images) for condition in _corruptions(plan, files)]
    conditions += [(condition, plan.attack_images) for condition in attacks]
    return [
        Cell(condition, *sets[count or 0], attacks.get(condition))
        for condition, count in dict.fromkeys(conditions)
    ]


def _counts(plan: EvaluationPlan) -> set[int]:
    return {count or 0 for count in (plan.clean_images, plan.corruption_images, plan.attack_images)}


def _image_set(dataset: ImageDataset, count: int, seed: int) -> tuple[ImageSet, NDArray[np.intp]]:
    positions = choose_images(dataset.labels, count, seed)
    images = ImageSet(
        dataset.name,
        dataset.fingerprint,
        dataset.indices[positions].astype(np.int32),
        dataset.labels[positions].astype(np.int16),
    )
    return images, positions


def corruption_names(plan: EvaluationPlan) -> list[str]:
    """Corruptions and chains of a plan, groups spelled out, in the plan's order.

    Raises:
        InputError: A name is unknown, or a chain names a corruption twice.
    """
    entries = (name for entry in plan.corruptions for name in CORRUPTION_GROUPS.get(entry, (entry,)))
    return list(dict.fromkeys(_checked_chain(name) for name in entries))


def _checked_chain(chain: str) -> str:
    names = [ALIASES.get(name, name) for name in chain.split("+")]
    for name in names:
        if name not in CORRUPTIONS:
            raise unknown_name("corruption", name, (*CORRUPTIONS, *CORRUPTION_GROUPS))
    if len(set(names)) < len(names):
        raise InputError(f"the corruption chain {chain!r} names one twice: give different corruptions.")
    return "+".join(names)


def _corruptions(plan: EvaluationPlan, files: CorruptedFiles | None) -> Iterator[Condition]:
    manifest = None if files is None else Manifest.read(files.folder)
    for name in corruption_names(plan):
        source = _generator(name) if files is None or "+" in name else _file_source(name, manifest)
        for severity in plan.severities:
            yield Condition("corruption", name, severity, source=source)


def _generator(name: str) -> str:
    """Images of different making never share a row: JPEG by another codec is another source."""
    approximate = any(agreement(part) == "approximate" for part in name.split("+"))
    return f"{GENERATOR}, approximate JPEG" if approximate else GENERATOR


def _file_source(name: str, manifest: Manifest | None) -> str:
    """Files with a manifest were made by a generator and are distinguished by their checksum."""
    return "official files" if manifest is None else f"files {manifest.files[name]['sha256'][:8]}"


def _attacks(
    plan: EvaluationPlan, surrogates: Mapping[str, nn.Module] | None
) -> Iterator[tuple[Condition, Suite]]:
    for setting in plan.attacks:
        threat, suite = as_threat(setting.threat), as_suite(setting.attack, surrogates)
        if threat.norm not in suite.norms:
            raise InputError(
                f"attack {setting.attack!r} knows the norms {', '.join(suite.norms)}, "
                f"the plan asks for {setting.threat!r}: choose another attack or threat."
            )
        yield Condition("attack", setting.attack, threat=str(threat)), suite


CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class CorruptionTask:
    """One chunk of corrupted images to make.

    Attributes:
        name: Corruption, or a chain of them joined by ``+``, applied from left to right at the same severity.
        severity: 1 to 5.
        seed: Seed of random corruptions.
        positions: (n,) positions in the data set.
    """

    name: str
    severity: int
    seed: int
    positions: NDArray[np.intp]


def split_positions(positions: NDArray[np.intp], image_bytes: int, batch_size: int) -> list[NDArray[np.intp]]:
    """Cut a choice of images into chunks of whole batches of at most about 16 MiB."""
    batches = max(1, CHUNK_BYTES // (image_bytes * batch_size))
    size = batches * batch_size
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def corrupted_chunks(
    dataset: ImageDataset,
    tasks: Sequence[CorruptionTask],
    source: CorruptionSource = CorruptionSource(),
) -> Generator[NDArray[np.uint8], None, None]:
    """Corrupted images of each task, in order.

    The images are the same whatever the number of workers: each is seeded on its own.

    Args:
        dataset: The whole data set.
        tasks: The images to make.
        source: Processes that work ahead of the consumer, where 0 makes each chunk when it is asked for; and the folder
            where chunks are kept, so that those of an earlier call are read instead of made.
    """
    workers, cache = source.workers, None if source.cache is None else Path(source.cache)
    if workers < 1 or not tasks:
        for task in tasks:
            yield _made_once(dataset, task, cache)
        return
    # Processes are spawned: forking a process that runs torch's threads can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_receive, initargs=(dataset, cache))
    pending: deque[Future[NDArray[np.uint8]]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(_make_received, task))
            if len(pending) > workers + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _made_once(dataset: ImageDataset, task: CorruptionTask, cache: Path | None) -> NDArray[np.uint8]:
    """Make a chunk, or read it where it was made before."""
    if cache is None:
        return _make(dataset, task)
    positions = task.positions.astype("<i8").tobytes()
    known = f"{dataset.fingerprint} {task.name} {task.severity} {task.seed}".encode() + positions
    path = cache / f"{hashlib.sha256(known).hexdigest()[:32]}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    chunk = _make(dataset, task)
    with suppress(InputError), file_written_whole(path) as target, target.open("wb") as file:
        np.save(file, chunk)  # a full disk costs the next model time, not this one its images
    return chunk


def _make(dataset: ImageDataset, task: CorruptionTask) -> NDArray[np.uint8]:
    chunk, indices = dataset.images[task.positions], dataset.indices[task.positions]
    for name in task.name.split("+"):
        chunk = corrupt(chunk, name, severity=task.severity, seed=task.seed, indices=indices)
    return chunk


_received: tuple[ImageDataset, Path | None] | None = None


def _receive(dataset: ImageDataset, cache: Path | None) -> None:
    """Keep the data set in a worker process, so that tasks carry positions only."""
    global _received
    _received = dataset, cache


def _make_received(task: CorruptionTask) -> NDArray[np.uint8]:
    if _received is None:
        raise RuntimeError("a corruption worker was started without its images")
    return _made_once(_received[0], task, _received[1])
