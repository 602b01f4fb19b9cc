"""One way to ask any file for predictions: a checkpoint folder, ONNX, or a .pt2 archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..configs import InputError
from ..configs.errors import first_line
from ..data.pictures import fitted, read_picture

Answer = tuple[NDArray[np.floating], Mapping[str, NDArray[np.floating]]]


@dataclass(frozen=True)
class Predictor:
    """A classifier from a file.

    Attributes:
        answer: Maps pixels in [0, 1], (N, C, H, W), to logits (N, classes) and what the front-end knows of each image,
            (N,) by name: "active_fraction" of a sparse code, "damage" and "gate" (0 shut, 1 open) of each gate.
        input_size: Channels, height and width of the images it takes.
        class_names: Names of the classes, in the order of the logits; numbers where the file has no names.
    """

    answer: Callable[[Tensor], Answer]
    input_size: tuple[int, int, int]
    class_names: Sequence[str]

    def read(self, path: str | Path) -> Tensor:
        """Read an image file as pixels in [0, 1], (1, C, H, W), prepared as for training.

        It is scaled (bicubic) until its shorter side fits, and cut out of the middle; see ``data.pictures``.

        Raises:
            InputError: If the file is missing or no image.
        """
        channels, height, width = self.input_size
        if channels not in (1, 3):
            raise InputError(f"the classifier takes images of {channels} channels; pictures have 1 or 3.")
        rgb = fitted(read_picture(path).rgb(), (height, width))
        if channels == 1:
            rgb = np.asarray(Image.fromarray(rgb).convert("L"))[..., None]
        pixels = rgb.astype(np.float32) / 255.0
        return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).contiguous()

    def name(self, index: int) -> str:
        """Return the name of a class."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"


def open_predictor(path: str | Path, *, trust: bool = False, device: torch.device | str = "cpu") -> Predictor:
    """Open a checkpoint folder, an .onnx file or a .pt2 archive.

    Args:
        path: A checkpoint of ``warplca train`` or a file of ``warplca export``.
        trust: Whether a .pt2 archive, which can run any code, may be opened.
        device: Device of a checkpoint; files compute where they were made for, ONNX on the CPU.

    Raises:
        InputError: If it is none of these, damaged, holds pickles, or is an archive without consent.
    """
    path = Path(path)
    if path.suffix == ".onnx" and path.is_file():
        return _from_onnx(path)
    if path.suffix == ".pt2" and path.is_file():
        return _from_program(path, trust)
    if path.suffix in (".onnx", ".pt2") and not path.exists():
        raise InputError(f"there is no file {path}; `warplca export` writes one.")
    return _from_folder(path, torch.device(device))


def _from_folder(path: Path, device: torch.device) -> Predictor:
    from .classifier import load_checkpoint

    model = load_checkpoint(path).to(device)

    @torch.no_grad()
    def answer(images: Tensor) -> Answer:
        logits, encoding = model.inspect(images.to(device))
        return logits.cpu().numpy(), {name: x.cpu().numpy() for name, x in encoding.figures().items()}

    size = (model.in_chans, *model.about["image_size"])
    return Predictor(answer, size, model.about.get("class_names", ()))


def _from_onnx(path: Path) -> Predictor:
    from .export.checked import read_metadata
    from .export.onnx_file import KEY, session_of

    session = session_of(path)
    known = read_metadata(session.get_modelmeta().custom_metadata_map.get(KEY, "{}"), path)

    def answer(images: Tensor) -> Answer:
        try:
            return _pair(session.run(None, {inputs[0].name: images.numpy()}), known)
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise InputError(f"{path} cannot be run on an image: {first_line(error)}") from error

    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise InputError(f"{path} takes {len(inputs)} inputs; expected one, of images.")
    size = list(inputs[0].shape)[1:]
    if len(size) != 3 or not all(isinstance(side, int) for side in size):
        raise InputError(f"{path} takes no images of a fixed size (channels, height, width): {size}.")
    return Predictor(answer, (size[0], size[1], size[2]), known.get("class_names", ()))


def _from_program(path: Path, trust: bool) -> Predictor:
    from .export.program import load_program

    call, known = load_program(path, trust=trust)
    if "input_size" not in known:
        raise InputError(f"{path} was not written by `warplca export`: it does not say what images it takes.")

    @torch.no_grad()
    def answer(images: Tensor) -> Answer:
        outputs = call(images)
        return _pair(
            [o.cpu().numpy() for o in (outputs if isinstance(outputs, list | tuple) else (outputs,))], known
        )

    channels, height, width = known["input_size"]
    return Predictor(answer, (channels, height, width), known.get("class_names", ()))


def _pair(outputs: Sequence[Any], known: Mapping[str, Any]) -> Answer:
    figures = dict(zip(known.get("figures", ()), outputs[1:], strict=False))  # a file may hold logits alone
    logits = np.asarray(outputs[0])
    if logits.ndim != 2 or not logits.size or logits.dtype.kind != "f" or not np.isfinite(logits).all():
        raise InputError(
            f"the file's first output has shape {logits.shape} and type {logits.dtype}; expected finite logits, "
            "one row an image."
        )
    return logits, figures
