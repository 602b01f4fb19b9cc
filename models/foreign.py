"""Anyone's classifier as a classifier of pixels in [0, 1]: of timm, in half precision, exported, or in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..configs import InputError


class PixelClassifier(nn.Module):
    """A module with its own normalisation and dtype, from float pixels in [0, 1] to float logits.

    Args:
        network: From normalised images in its own floating type to logits.
        mean: Per-channel mean that it wants taken off.
        std: Per-channel deviation that it wants divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, -1, 1, 1))
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, C, H, W) pixels in [0, 1]; logits have the type of the pixels."""
        pixels = (images - self.mean.to(images)) / self.std.to(images)
        return self.network(pixels.to(dtype_of(self.network) or images.dtype)).to(images.dtype)

    def train(self, mode: bool = True) -> PixelClassifier:
        """Set the mode; what torch.export wrote keeps the one it was exported in."""
        self.training = mode
        try:
            self.network.train(mode)
        except NotImplementedError:
            for part in self.network.modules():
                part.training = mode
        return self


def dtype_of(network: nn.Module) -> torch.dtype | None:
    """The floating type of a module's first parameter; None without one."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)


def as_classifier(
    model: nn.Module | torch.export.ExportedProgram | str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trust: bool = False,
) -> Callable[[Tensor], Tensor]:
    """Make any classifier take pixels in [0, 1], as all of warplca (and foolbox, and RobustBench) hands them over.

    Args:
        model: A timm model (its ``pretrained_cfg`` names the normalisation), any other module, an exported program,
            or the path of an ONNX file or of a .pt2 archive.
        mean: Per-channel mean that the model wants taken off; None asks its ``pretrained_cfg``.
        std: Per-channel deviation that it wants divided by; both or neither.
        trust: Whether a .pt2 archive, which can run any code, may be opened.

    Returns:
        An ``nn.Module`` in evaluation mode; of a file a function, which has no gradients. A model that wants no
        normalisation, and computes in float32, comes back as it is.

    Raises:
        InputError: Nothing says how a file wants its pixels, or the argument is no classifier.
    """
    if (mean is None) != (std is None):
        raise InputError(f"mean={mean}, std={std}; expected both or neither.")
    if isinstance(model, str | Path):
        return _from_file(Path(model), mean, std, trust)
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if not isinstance(model, nn.Module):
        raise InputError(
            f"as_classifier was given {type(model).__name__}; expected an nn.Module, an exported program or the path "
            "of an ONNX file. A function of pixels in [0, 1] is used as it is."
        )
    if mean is None or std is None:
        mean, std = _normalisation(model) or ((0.0,), (1.0,))
    plain = all(m == 0 for m in mean) and all(s == 1 for s in std)
    if plain and dtype_of(model) in (None, torch.float32) and not _keeps_mode(model):
        return model.eval()
    return PixelClassifier(model, mean, std).eval()


def _normalisation(model: nn.Module) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and deviation in timm's ``pretrained_cfg``, looked for behind compilation and data parallelism too."""
    inner: Any = getattr(model, "_orig_mod", getattr(model, "module", model))
    config = getattr(inner, "pretrained_cfg", None) or {}
    return (config["mean"], config["std"]) if config.get("mean") and config.get("std") else None


def _keeps_mode(model: nn.Module) -> bool:
    try:
        model.train(model.training)
    except NotImplementedError:
        return True
    return False


def _from_file(
    path: Path, mean: Sequence[float] | None, std: Sequence[float] | None, trust: bool
) -> Callable[[Tensor], Tensor]:
    """A function that runs an exported file of ours, or another one whose normalisation is given."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected an ONNX file or a .pt2 archive.")
    run, known = _program(path, trust) if path.suffix == ".pt2" else _onnx(path)
    if mean is None or std is None:
        if "input_size" not in known:  # not written by `warplca export`
            raise InputError(
                f"{path} does not say how it wants its pixels; give mean and std, such as "
                "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), or (0, 0, 0) and (1, 1, 1) if it takes [0, 1]."
            )
        mean, std = (0.0,), (1.0,)
    centre, scale = (torch.tensor(tuple(v)).view(1, -1, 1, 1) for v in (mean, std))

    def classify(images: Tensor) -> Tensor:
        return run(((images.detach().cpu() - centre) / scale).float()).to(images)

    classify.__name__ = path.stem
    classify.hardened = known.get("hardened", False)  # type: ignore[attr-defined]
    return classify


def _onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    from .export.checked import read_metadata
    from .export.onnx_file import KEY, session_of

    session = session_of(path)
    name = session.get_inputs()[0].name
    known = read_metadata(session.get_modelmeta().custom_metadata_map.get(KEY, "{}"), path)
    return lambda pixels: torch.from_numpy(session.run(None, {name: pixels.numpy()})[0]), known


def _program(path: Path, trust: bool) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    from .export.program import load_program

    call, known = load_program(path, trust=trust)

    @torch.no_grad()
    def run(pixels: Tensor) -> Tensor:
        outputs = call(pixels)  # logits, and what the front-end knows
        return outputs[0] if isinstance(outputs, list | tuple) else outputs

    return run, known
