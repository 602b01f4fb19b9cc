"""What the plug-in's studies put before a classifier, and the published classifiers that it is put before."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from denoisers import each, trained_convolutions
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from warplca.configs.load import load_config
from warplca.frontend import LCA, noise_level
from warplca.frontend.gate import mean_of_image, through_gate
from warplca.models import harden
from warplca.models.harden import ChainConfig

RESTORE = "cifar10-64x9s2-restore"
GATE = (0.012, 0.018)  # of restoring, and of everything that is compared with it
CODING = "cifar10-64x9s2-soft"
RULE = {"output": "reconstruction", "lam": 0.05, "adaptive_lam": 1.5, "gate": list(GATE)}
Builders = dict[str, Callable[[nn.Module], nn.Module]]
LCA_CYCLES = {"equal cycles (3)": 3, "equal multiply-adds (9)": 9, "settled (300)": 300}


def parser(text: str | None) -> argparse.ArgumentParser:
    """The options that all studies of published classifiers have."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument(
        "--classifiers", required=True, type=Path, help="checkout with resnet.py and the weights"
    )
    options.add_argument("--out", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
    return options


class Classical(nn.Module):
    """A classical denoiser before a classifier, behind the gate that the restoring front-end has.

    Args:
        model: The classifier.
        denoise: Maps an image (H, W, 3) and the estimated standard deviation of its noise to an image.
    """

    def __init__(self, model: nn.Module, denoise: Callable[[Any, float], Any]) -> None:
        super().__init__()
        self.model, self.denoise = model, denoise

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, 3, H, W), pixels in [0, 1]."""
        noise = iter(noise_level(images).tolist())
        restored = each(images, "", lambda image: self.denoise(image, next(noise)), quiet=True)
        return self.model(behind_gate(images, restored))


class Restored(nn.Module):
    """A network that restores images before a classifier, behind the same gate.

    Args:
        model: The classifier.
        network: Maps images (N, 3, H, W) to restored ones.
    """

    def __init__(self, model: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.model, self.network = model, network

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, 3, H, W), pixels in [0, 1]."""
        return self.model(behind_gate(images, self.network(images)))


def behind_gate(images: Tensor, restored: Tensor) -> Tensor:
    """Return what the gate of the shipped chain lets through of restored images."""
    damage = mean_of_image((restored - images).square()).sqrt()
    return through_gate(images, restored, damage, GATE).images.clamp(0, 1)


ADAPTED = "batch-norm statistics of the batch"


class Adapted(nn.Module):
    """A classifier whose batch norms take the statistics of the present batch (Schneider et al., NeurIPS 2020).

    It needs many images of one kind at a time, and one image's answer depends on the others.

    Args:
        model: The classifier.
        pool: Other images, (N, 3, H, W), that make up three quarters of each batch; None takes the batch alone.
    """

    def __init__(self, model: nn.Module, pool: Tensor | None) -> None:
        super().__init__()
        self.model, self.pool = model, pool
        self.norms = [part for part in model.modules() if isinstance(part, _BatchNorm)]

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, 3, H, W), pixels in [0, 1]."""
        batch = images if self.pool is None else torch.cat([images, self.pool[: 3 * len(images)]])
        kept = [(norm.training, norm.momentum) for norm in self.norms]
        for norm in self.norms:
            norm.training, norm.momentum = True, 0.0  # running statistics stay
        logits = self.model(batch)[: len(images)]
        for norm, (training, momentum) in zip(self.norms, kept, strict=True):
            norm.training, norm.momentum = training, momentum
        return logits


def classical() -> dict[str, Callable[[Any, float], Any]]:
    """The denoisers by row; the factor on the estimated noise is what plugin_choice.py took for each."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

    def means(image: Any, sigma: float) -> Any:
        return denoise_nl_means(image, 5, 6, h=0.8 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1)

    def shrunk(image: Any, sigma: float) -> Any:
        return denoise_wavelet(image, sigma=sigma, channel_axis=-1, convert2ycbcr=True, rescale_sigma=True)

    def block_matching(image: Any, sigma: float) -> Any:
        from bm3d import bm3d_rgb  # pyright: ignore[reportMissingImports]

        return bm3d_rgb(image, max(sigma, 1e-3))

    return {
        "BM3D": block_matching,
        "median 3 x 3": lambda image, sigma: median_filter(image, (3, 3, 1)),
        "total variation": lambda image, sigma: denoise_tv_chambolle(
            image, max(0.5 * sigma, 1e-4), channel_axis=-1
        ),
        "wavelet": shrunk,
        "non-local means": means,
    }


def rows(mixed: Tensor, convolutions: Path | None = None) -> Builders:
    """Every row of the study: what stands before the classifier.

    Args:
        mixed: Images of all corruptions, (N, 3, H, W), for the statistics of mixed batches.
        convolutions: Folder of trained convolutional denoisers, which long_denoisers.py wrote; None has none.
    """
    restore = {"weights": RESTORE, "gate": list(GATE)}
    found: Builders = {
        "bare": lambda model: model,
        "impulse repair": lambda model: harden(model, "impulse-repair"),
        "restoring WARP-LCA, no gate": lambda model: harden(model, {"weights": RESTORE, "gate": None}),
        "restoring WARP-LCA": lambda model: harden(model, restore),
        **{
            f"restoring WARP-LCA, {cycles} cycles": lambda model, cycles=cycles: harden(
                model, {**restore, "iterations": cycles}
            )
            for cycles in (5, 10)
        },
        "contrast levelling": lambda model: harden(model, "contrast"),
        "equaliser": lambda model: harden(model, "cifar10-equaliser"),
        "impulses, restoring": lambda model: harden(model, ["impulse-repair", restore]),
        "impulses, restoring, equaliser": lambda model: harden(
            model, ["impulse-repair", restore, "cifar10-equaliser"]
        ),
        "chain cifar10": lambda model: harden(model, "cifar10"),
        "coding WARP-LCA, 10 cycles": lambda model: harden(model, {"weights": CODING, **RULE}),
        **{f"plain LCA, {name}": partial(_behind_lca, cycles=cycles) for name, cycles in LCA_CYCLES.items()},
    }
    for name, pool in (("one corruption a batch", None), ("mixed batches", mixed)):
        found[f"{ADAPTED}, {name}"] = lambda model, pool=pool: Adapted(model, pool)
    for name, network in trained_convolutions(convolutions).items() if convolutions else ():
        found[name] = lambda model, network=network: Restored(model, network)
        found[f"chain, {name}"] = partial(_chain_around, network=network)
    for name, denoise in classical().items():
        found[name] = lambda model, denoise=denoise: Classical(model, denoise)
    return found


def _chain_around(model: nn.Module, network: nn.Module) -> nn.Module:
    """The shipped chain, another network in the place of its WARP-LCA."""
    before, _, *after = load_config(ChainConfig, "cifar10", "chains").frontends
    return harden(Restored(harden(model, after), network), before)


def _behind_lca(model: nn.Module, cycles: int) -> nn.Module:
    """Plain LCA with the shipped coding dictionary, whose rule of lambda was fitted at settled codes."""
    sizes = {"features": 64, "kernel_size": 9, "stride": 2, "threshold": "soft"}
    return harden(model, LCA(weights=CODING, **RULE, **sizes, iterations=cycles))


def published(folder: Path, name: str) -> nn.Module:
    """A published classifier on pixels in [0, 1], in evaluation mode."""
    module = _module(folder / "resnet.py")
    network = getattr(module, name)()
    weights = next(folder.rglob(f"{name}-*.th"))
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return Normalised(network).eval()


class Normalised(nn.Module):
    """A classifier behind the normalisation that it was trained with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Classify pixels in [0, 1]."""
        return self.network((images - self.mean) / self.std)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
