"""Export of classifiers, checked against PyTorch on real images before a file is kept.

What is written is a copy on the CPU: a file does not depend on where its model was, and holds no limits of one device's
kernels. Its answers are compared with those of the model itself, where that is.

Threshold flips explain why a few images' logits differ between backends by more than rounding.
A code unit whose state lies within rounding of the threshold may pass it in one backend and not in the other; a hard
threshold then changes the code by lambda at once, and later cycles carry the difference on. Whether that is what
happened is shown from the states of every cycle: up to the first cycle in which the two codes differ in any unit, the
states agree to a tolerance, and each unit that differs there lies within that tolerance of the threshold.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ... import __version__
from ...configs import InputError
from ...configs.atomic import file_written_whole
from ...configs.device import float32
from ...configs.errors import brief, check_class_names
from ...configs.load import to_plain
from ...configs.untrusted import file_with, parse_json
from ...frontend import Frontend
from ..classifier import Classifier

logger = logging.getLogger(__name__)

is_export = file_with(b"warplca")
"""Tells whether a file is an exported classifier, which another may replace: all of them say by whom they were made."""

FLIP_TOLERANCE = (
    1e-3  # in units of the standardised image; states of magnitude 1 to 10 after tens of float32 cycles
)


class ThresholdTrace(nn.Module):
    """Maps images to the margins of a front-end's hard decisions, (N, decisions, units); see ``Frontend.margins``."""

    def __init__(self, frontend: Frontend) -> None:
        super().__init__()
        self.frontend = frontend

    def forward(self, images: Tensor) -> Tensor | None:
        """Return the margins."""
        return self.frontend.margins(images)


def are_flips(expected: NDArray[np.floating], found: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell for each image whether a threshold flip explains that two backends differ.

    Args:
        expected: Margins of :class:`ThresholdTrace` in PyTorch, (N, cycles, ...).
        found: The same from the other backend.

    Returns:
        (N,) True where the codes differ somewhere, the states before agree to :data:`FLIP_TOLERANCE`, and every unit
        that differs first lies within it of the threshold in both.
    """
    return np.array([_is_flip(one, other) for one, other in zip(expected, found, strict=True)], dtype=bool)


def _is_flip(expected: NDArray[np.floating], found: NDArray[np.floating]) -> bool:
    differs = (expected > 0) != (found > 0)
    cycles = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
    if not len(cycles):
        return False
    first = int(cycles[0])
    agreed = np.abs(expected[: first + 1] - found[: first + 1]).max() <= FLIP_TOLERANCE
    units = differs[first]
    near = np.maximum(np.abs(expected[first][units]), np.abs(found[first][units])).max() <= FLIP_TOLERANCE
    return bool(agreed and near)


TOLERANCE = 1e-4

DOUBLE_TOLERANCE = 1e-9

BATCH = 100

MOST_TRACED = 20

Outputs = list[NDArray[np.floating]]

Run = Callable[[Tensor], Outputs]


class Backend(Protocol):
    """A file format and what runs it."""

    name: str
    double: bool

    def write(self, model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        """Write a module on the CPU for images of this shape, at any batch size."""
        ...

    def open(self, path: Path) -> Run:
        """Open a file that was written; the result maps images to arrays, logits first."""
        ...


@dataclass(frozen=True)
class ExportCheck:
    """Agreement of an exported file with PyTorch on real images.

    Attributes:
        images: Number of images compared.
        max_difference: Largest absolute difference of a logit.
        within_tolerance: Share of images whose logits all agree to 1e-4.
        same_prediction: Share of images with the same predicted class.
        outliers: Number of images whose logits differ by more than 1e-4.
        flips: Number of those (of the first 20) that are shown to be threshold flips.
        double_difference: Largest difference of a logit in float64; None where the backend has no float64.
        size: Bytes of the file.
        latency: Median milliseconds for one image on the CPU, as many threads as PyTorch has here.
        eager_latency: The same for PyTorch, in runs that alternate with those.
    """

    images: int
    max_difference: float
    within_tolerance: float
    same_prediction: float
    outliers: int
    flips: int
    double_difference: float | None
    size: int
    latency: float
    eager_latency: float


class Deployed(nn.Module):
    """The exported module: logits, and the front-end's figures of each image, such as the share of active units.

    Args:
        model: The classifier, or any module from pixels to logits.
        sparsity: Whether to give the others.
    """

    def __init__(self, model: nn.Module, *, sparsity: bool = True) -> None:
        super().__init__()
        self.model = model
        known = model.frontend.figure_names if sparsity and isinstance(model, Classifier) else ()
        self.output_names = ("logits", *known)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map pixels in [0, 1] to the outputs named in ``output_names``."""
        if len(self.output_names) == 1:
            return self.model(images)
        logits, encoding = cast(Classifier, self.model).inspect(images)
        return (logits, *encoding.figures().values())


def export_checked(
    backend: Backend, model: nn.Module, path: str | Path, images: Tensor, *, sparsity: bool = True
) -> ExportCheck:
    """Write a file, if what runs it agrees with PyTorch on the images.

    Logits must agree to 1e-4 for 99 % of the images and predictions for 99.9 %; every image beyond must be a threshold
    flip; and in float64, where the backend has it, logits must agree to 1e-9.

    Args:
        backend: The format.
        model: Maps pixels in [0, 1] to logits, on any device; used in evaluation mode.
        path: File to write; an older export there is replaced if the check passes.
        images: Real images (N, C, H, W) to compare on; their height and width become the file's.
        sparsity: Whether a classifier with a sparse code gives ``active_fraction`` (N,) beside ``logits``.

    Raises:
        InputError: If optional packages or tools are missing or the check fails (no file is written then).
    """
    model, images = model.eval(), images.cpu()
    copied = on_cpu(model)
    deployed = Deployed(copied, sparsity=sparsity)
    with file_written_whole(Path(path), ours=is_export) as target, TemporaryDirectory() as folder:
        draft = Path(folder) / "model.pt2"  # a name that every writer accepts
        logger.info("writing %s", backend.name)
        backend.write(deployed, images, draft, metadata(model, images))
        logger.info("running it beside PyTorch on %d images", len(images))
        run = backend.open(draft)
        expected = eager(model, images)
        found = in_batches(run, images)
        difference = np.abs(expected - found).max(axis=1)
        outliers = np.flatnonzero(~(difference <= TOLERANCE))
        logger.info("timing both, and looking at what differs (%d images)", len(outliers))
        latency, eager_latency = interleaved_latency(run, copied, images[:1])
        check = ExportCheck(
            images=len(images),
            max_difference=float(difference.max()),
            within_tolerance=1.0 - len(outliers) / len(images),
            same_prediction=float((expected.argmax(1) == found.argmax(1)).mean()),
            outliers=len(outliers),
            flips=_count_flips(backend, model, copied, images[outliers[:MOST_TRACED]], Path(folder)),
            double_difference=_double_difference(backend, copied, images[:20], Path(folder)),
            size=draft.stat().st_size,
            latency=latency,
            eager_latency=eager_latency,
        )
        refuse_disagreement(check, backend.name)
        target.write_bytes(draft.read_bytes())
    return check


def refuse_disagreement(check: ExportCheck, name: str) -> None:
    """Refuse a file that disagrees with PyTorch.

    Raises:
        InputError: With what was found and what was expected.
    """
    disagreement = (
        f"the {name} file disagrees with PyTorch: logits within {TOLERANCE:g} on {check.within_tolerance:.1%} of "
        f"{check.images} images (99 % expected), same prediction on {check.same_prediction:.2%} (99.9 % expected)"
    )
    traced = min(check.outliers, MOST_TRACED)
    if check.within_tolerance < 0.99 or check.same_prediction < 0.999:
        raise InputError(f"{disagreement}; nothing was written. Try another version of its runtime.")
    if check.flips < traced:
        raise InputError(
            f"{disagreement}, and {traced - check.flips} of {traced} differing images are no threshold flips; "
            "nothing was written. Try another version of its runtime."
        )
    if check.double_difference is not None and not check.double_difference <= DOUBLE_TOLERANCE:
        raise InputError(
            f"the {name} file disagrees with PyTorch in float64 by {check.double_difference:.2g} ({DOUBLE_TOLERANCE:g} "
            "expected); nothing was written. Try another version of its runtime."
        )


def metadata(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Return the metadata that is written into a file: versions, image size, class names, evidence."""
    about = model.about if isinstance(model, Classifier) else {}
    return {
        "warplca": __version__,
        "torch": torch.__version__,
        "input_size": list(images.shape[1:]),
        "class_names": list(about.get("class_names", ())),
        "figures": list(model.frontend.figure_names) if isinstance(model, Classifier) else [],
        "model": to_plain(model.config) if isinstance(model, Classifier) else {},
        "hardened": bool(getattr(model, "hardened", False)),
        "training": dict(about.get("training", {})),
        "results": dict(about.get("results", {})),
        "evidence": dict(about.get("evidence", {})),
    }


def read_metadata(text: str | bytes, path: Path) -> dict[str, Any]:
    """Return the metadata of an exported file, checked: the file may come from anywhere.

    Raises:
        InputError: If it is broken.
    """
    known = parse_json(text, f"the metadata of {path}")
    if not isinstance(known, dict):
        raise InputError(
            f"the metadata of {path} are {brief(known)}; expected a mapping. Export the classifier again."
        )
    names, figures = known.get("class_names", []), known.get("figures", [])
    if not (isinstance(names, list) and isinstance(figures, list)):
        raise InputError(
            f"{path} has class names {brief(names)}; expected a list. Export the classifier again."
        )
    known["class_names"] = check_class_names(names, str(path))
    size = known.get("input_size", [1, 1, 1])
    if not (
        isinstance(size, list) and len(size) == 3 and all(isinstance(n, int) and 0 < n < 2**14 for n in size)
    ):
        raise InputError(f"{path} is for images of {brief(size)}; expected channels, height and width.")
    return known


@torch.no_grad()
def eager(model: nn.Module, images: Tensor) -> NDArray[np.floating]:
    """Return PyTorch's own logits, computed where the model is, in full precision."""
    with float32():
        return torch.cat([model(beside(model, batch)).cpu() for batch in images.split(BATCH)]).numpy()


def beside(model: nn.Module, images: Tensor) -> Tensor:
    """Return images on the device of a model."""
    weight = next(chain(model.parameters(), model.buffers()), images)
    return images.to(weight.device)


def on_cpu(model: nn.Module) -> nn.Module:
    """Return a model that is on the CPU as it is, another as a copy there."""
    tensors = chain(model.parameters(), model.buffers())
    return model if all(tensor.device.type == "cpu" for tensor in tensors) else copy.deepcopy(model).cpu()


def in_batches(run: Run, images: Tensor) -> NDArray[np.floating]:
    """Return a file's first output."""
    return np.concatenate([run(batch)[0] for batch in images.split(BATCH)])


@torch.no_grad()
def interleaved_latency(run: Run, model: nn.Module, image: Tensor, runs: int = 30) -> tuple[float, float]:
    """Return the median milliseconds of a file and of a model, in alternating runs."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(runs + 3):
        for kept, call in zip(times, (run, model), strict=True):
            start = time.perf_counter()
            call(image)
            if repeat >= 3:  # the first runs warm caches up
                kept.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[0])), float(np.median(times[1]))


def _count_flips(backend: Backend, model: nn.Module, copied: nn.Module, images: Tensor, folder: Path) -> int:
    if not (len(images) and isinstance(model, Classifier) and isinstance(copied, Classifier)):
        return 0
    with torch.no_grad(), float32():
        expected = ThresholdTrace(model.frontend).eval()(beside(model, images))
    if expected is None:
        return 0
    backend.write(ThresholdTrace(copied.frontend).eval(), images, folder / "trace.pt2", {})
    found = backend.open(folder / "trace.pt2")(images)[0]
    return int(are_flips(expected.cpu().numpy(), found).sum())


def _double_difference(backend: Backend, model: nn.Module, images: Tensor, folder: Path) -> float | None:
    if not backend.double:
        return None
    double = copy.deepcopy(model).double()
    backend.write(Deployed(double, sparsity=False), images.double(), folder / "double.pt2", {})
    found = backend.open(folder / "double.pt2")(images.double())[0]
    return float(np.abs(found - eager(double, images.double())).max())
