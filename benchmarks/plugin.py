"""Front-ends before published CIFAR-10 classifiers that stay as they are: clean, and all 75 cells of CIFAR-10-C.

Usage: python benchmarks/plugin.py --data cifar10.npz --classifiers DIR [--network resnet20] [--rows bare restore ...]

DIR is a checkout of github.com/akamaster/pytorch_resnet_cifar10 with the weights of its folder pretrained_models beside
resnet.py; its code is run, its weights are read as tensors only. Every row is a model of one results store, whose
finished cells are not measured again. Test images 1,000 to 1,999; nothing was chosen on them.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from common import table, write
from denoisers import each
from scipy.ndimage import median_filter
from torch import Tensor, nn

from warplca.data import CORRUPTION_GROUPS, ImageDataset, load_dataset, write_corruptions
from warplca.eval import ResultsStore, compare, evaluate
from warplca.frontend import LCA, WarpLCA, noise_level
from warplca.frontend.gate import mean_of_image, through_gate
from warplca.models import harden

RESTORE = "cifar10-64x9s2-restore"
FIRST, COUNT = 1000, 1000
NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
SETTLED = 300  # cycles


class Classical(nn.Module):
    """A classical denoiser before a classifier, behind the gate that the restoring front-end has.

    Args:
        model: The classifier.
        denoise: Maps an image (H, W, 3) and the estimated standard deviation of its noise to an image.
        gate: As in :func:`~warplca.frontend.gate.through_gate`.
    """

    def __init__(
        self, model: nn.Module, denoise: Callable[[Any, float], Any], gate: tuple[float, float]
    ) -> None:
        super().__init__()
        self.model, self.denoise, self.gate = model, denoise, gate

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, 3, H, W), pixels in [0, 1]."""
        noise = iter(noise_level(images).tolist())
        restored = each(images, "", lambda image: self.denoise(image, next(noise)), quiet=True)
        damage = mean_of_image((restored - images).square()).sqrt()
        return self.model(through_gate(images, restored, damage, self.gate).images.clamp(0, 1))


def classical() -> dict[str, Callable[[Any, float], Any]]:
    """The denoisers by row; strengths are those of their authors' advice for the estimated noise."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

    def means(image: Any, sigma: float) -> Any:
        return denoise_nl_means(image, 5, 6, h=0.8 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1)

    def shrunk(image: Any, sigma: float) -> Any:
        return denoise_wavelet(image, sigma=sigma, channel_axis=-1, convert2ycbcr=True, rescale_sigma=True)

    return {
        "median 3 x 3": lambda image, sigma: median_filter(image, (3, 3, 1)),
        "total variation": lambda image, sigma: denoise_tv_chambolle(
            image, max(sigma, 1e-4), channel_axis=-1
        ),
        "wavelet": shrunk,
        "non-local means": means,
    }


def rows(gate: tuple[float, float]) -> dict[str, Callable[[nn.Module], nn.Module]]:
    """Every row of the study: what stands before the classifier."""
    restore = {"weights": RESTORE, "gate": list(gate)}
    equal = {"name": "lca", **_dictionary(), "iterations": WarpLCA.from_pretrained(RESTORE).iterations}
    found: dict[str, Callable[[nn.Module], nn.Module]] = {
        "bare": lambda model: model,
        "impulse repair": lambda model: harden(model, "impulse-repair"),
        "restoring WARP-LCA, no gate": lambda model: harden(model, {"weights": RESTORE, "gate": None}),
        "restoring WARP-LCA": lambda model: harden(model, restore),
        "contrast levelling": lambda model: harden(model, "contrast"),
        "equaliser": lambda model: harden(model, "cifar10-equaliser"),
        "impulses, restoring": lambda model: harden(model, ["impulse-repair", restore]),
        "impulses, restoring, equaliser": lambda model: harden(
            model, ["impulse-repair", restore, "cifar10-equaliser"]
        ),
        "chain cifar10": lambda model: harden(model, "cifar10"),
        "coding WARP-LCA, 10 cycles": lambda model: harden(model, _coding(gate)),
        "plain LCA, equal cycles": lambda model: harden(model, LCA(**equal, gate=gate)),
        "plain LCA, 300 cycles": lambda model: harden(
            model, LCA(**{**equal, "iterations": SETTLED}, gate=gate)
        ),
    }
    for name, denoise in classical().items():
        found[name] = lambda model, denoise=denoise: Classical(model, denoise, gate)
    return found


def _coding(gate: tuple[float, float]) -> dict[str, Any]:
    """The shipped soft front-end, with the rule fitted for it."""
    return {
        "weights": "cifar10-64x9s2-soft",
        "output": "reconstruction",
        "lam": 0.05,
        "adaptive_lam": 1.5,
        "gate": list(gate),
    }


def _dictionary() -> dict[str, Any]:
    """What plain LCA shares with the restoring front-end: dictionary, threshold and the rule of lambda."""
    layer = WarpLCA.from_pretrained(RESTORE)
    s = layer.settings
    return {
        "weights": RESTORE,
        "lam": s.lam,
        "adaptive_lam": s.adaptive_lam,
        "threshold": s.threshold,
        "output": s.output,
        "features": s.features,
        "kernel_size": s.kernel_size,
        "stride": s.stride,
    }


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


def milliseconds(model: nn.Module, images: Tensor) -> float:
    """Shortest of three passes over the images, an image."""
    found = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            model(images)
            found.append((time.perf_counter() - start) / len(images) * 1e3)
    return min(found)


def measured(store: ResultsStore, images: int) -> str:
    """The table of all rows."""
    found = compare(store, baseline="bare")
    cells = found.cells
    lines = []
    for row in found.summary.to_dict("records"):
        own = cells[(cells["model"] == row["model"]) & (cells["kind"] == "corruption")]
        tests = found.tests[(found.tests["model"] == row["model"]) & (found.tests["level"] == "cell")]
        lines.append([row["model"], *_figures(row, own), *_against_bare(tests)])
    head = ["before the classifier", "clean", "mean", "without noise", "Gaussian", "shot", "impulse"]
    head += ["cells better", "worse", "worst cell"]
    return (
        table(head, lines)
        + f"\n{images} test images; % correct; better and worse: significant after Holm's adjustment.\n"
    )


def _figures(row: dict[str, Any], cells: pd.DataFrame) -> list[str]:
    by = cells.groupby("condition")["accuracy"].mean() * 100
    quiet = by[[name for name in by.index if name not in NOISE]].mean()
    return [f"{value:.1f}" for value in (100 * row["clean"], by.mean(), quiet, *by.reindex(list(NOISE)))]


def _against_bare(tests: pd.DataFrame) -> list[str]:
    if tests.empty:
        return ["", "", ""]
    clear = tests[tests["p_holm"] < 0.05]["difference"]
    worst = tests.loc[tests["difference"].idxmin()]
    return [
        str((clear > 0).sum()),
        str((clear < 0).sum()),
        f"{worst['label']} {100 * worst['difference']:+.1f}",
    ]


def corrupted(dataset: ImageDataset, folder: Path) -> Path:
    """Write the corrupted images once, for all rows."""
    write_corruptions(dataset, folder, names=list(CORRUPTION_GROUPS["standard"]))
    return folder


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument(
        "--classifiers", required=True, type=Path, help="checkout with resnet.py and the weights"
    )
    options.add_argument(
        "--network", default="resnet20", help="resnet20, resnet32 or resnet44 (default: %(default)s)"
    )
    options.add_argument("--rows", nargs="*", default=None, help="only these (default: all)")
    options.add_argument(
        "--gate", nargs=2, type=float, default=(0.012, 0.018), help="of restoring (default: %(default)s)"
    )
    options.add_argument(
        "--work", type=Path, default=Path("runs/plugin"), help="stores and images (default: %(default)s)"
    )
    options.add_argument("--out", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
    arguments = options.parse_args()
    whole = load_dataset(arguments.data, "test")
    dataset = whole.subset(list(range(FIRST, FIRST + COUNT)))
    files = corrupted(dataset, arguments.work / "corrupted")
    model = published(arguments.classifiers, arguments.network)
    path = arguments.work / f"plugin-{arguments.network}.sqlite"
    for name, build in rows(tuple(arguments.gate)).items():
        if arguments.rows is None or name in arguments.rows:
            evaluate(build(model), dataset, "corruptions", results=path, name=name, corruption_source=files)
    with ResultsStore(path, read_only=True) as store:
        text = measured(store, len(dataset))
    print(text)
    write(arguments.out / f"plugin-{arguments.network}.md", text)


if __name__ == "__main__":
    main()
