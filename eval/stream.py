"""Corrupted images as a stream of chunks, made ahead of the model by worker processes."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data import ImageDataset, corrupt

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
    dataset: ImageDataset, tasks: Sequence[CorruptionTask], *, workers: int = 0
) -> Generator[NDArray[np.uint8], None, None]:
    """Corrupted images of each task, in order.

    The images are the same whatever the number of workers: each is seeded on its own.

    Args:
        dataset: The whole data set.
        tasks: What to make.
        workers: Processes that work ahead of the consumer; 0 makes each chunk when it is asked for.
    """
    if workers < 1 or not tasks:
        for task in tasks:
            yield _make(dataset, task)
        return
    # Processes are spawned: forking a process that runs torch's threads can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_receive, initargs=(dataset,))
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


def _make(dataset: ImageDataset, task: CorruptionTask) -> NDArray[np.uint8]:
    chunk, indices = dataset.images[task.positions], dataset.indices[task.positions]
    for name in task.name.split("+"):
        chunk = corrupt(chunk, name, severity=task.severity, seed=task.seed, indices=indices)
    return chunk


_received: ImageDataset | None = None


def _receive(dataset: ImageDataset) -> None:
    """Keep the data set in a worker process, so that tasks carry positions only."""
    global _received
    _received = dataset


def _make_received(task: CorruptionTask) -> NDArray[np.uint8]:
    if _received is None:
        raise RuntimeError("a corruption worker was started without its images")
    return _make(_received, task)
