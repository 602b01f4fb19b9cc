"""Front-ends before published CIFAR-10 classifiers that stay as they are: clean, and all 75 cells of CIFAR-10-C.

Usage: python benchmarks/plugin.py --data cifar10.npz --classifiers DIR [--network resnet20] [--noise] [--rows bare ...]

DIR is a checkout of github.com/akamaster/pytorch_resnet_cifar10 with the weights of its folder pretrained_models beside
resnet.py; its code is run, its weights are read as tensors only. Every row is a model of one results store, whose
finished cells are not measured again. Test images 1,000 to 1,999; gates and strengths are those that plugin_choice.py
chose elsewhere. With --noise the three noise corruptions only, on fewer images, for the slower denoisers too. With
--attacked no corruptions, but the suite `quick` at these Linf radii: how many of the images each row answers rightly.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import table, write
from plugin_rows import ADAPTED, Builders, parser, published, rows
from torch import Tensor, nn

from warplca.configs import AttackSetting, EvaluationPlan
from warplca.configs.device import choose_device
from warplca.data import CORRUPTION_GROUPS, ImageDataset, load_dataset, write_corruptions
from warplca.eval import CorruptionSource, Entry, ResultsStore, compare, evaluate
from warplca.frontend.priming.restoring import noisy
from warplca.models import load_checkpoint

FIRST, COUNT = 1000, 1000
NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")


def mixed(folder: Path, count: int = 384) -> Tensor:
    """Images of all corruptions and severities at random, (count, 3, H, W)."""
    generator, found = np.random.default_rng(0), []
    for _ in range(count):
        stack = np.load(folder / f"{generator.choice(CORRUPTION_GROUPS['standard'])}.npy", mmap_mode="r")
        found.append(stack[generator.integers(len(stack))])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


def _times(model: nn.Module, builders: Builders, dataset: ImageDataset, images: int = 16) -> dict[str, float]:
    """Time of each row on a batch of noisy images, as a ratio to the bare classifier's; shortest of two."""
    batch = noisy(
        dataset.tensors(list(range(images)))[0], 0.1, torch.Generator().manual_seed(0), clipped=True
    )
    found = {}
    with torch.no_grad():
        for name, build in builders.items():
            behind, seconds = build(model), []
            for _ in range(2):
                start = time.process_time()
                behind(batch)
                seconds.append(time.process_time() - start)
            found[name] = min(seconds)
    return {name: seconds / found["bare"] for name, seconds in found.items()}


def measured(store: ResultsStore, baseline: str, times: Mapping[str, float]) -> str:
    """The table of all rows; times are those of the whole classifier against the bare one's, if any."""
    found = compare(store, baseline=baseline)
    cells = found.cells
    lines = []
    for row in found.summary.to_dict("records"):
        own = cells[(cells["model"] == row["model"]) & (cells["kind"] == "corruption")]
        tests = found.tests[found.tests["model"] == row["model"]]
        lines.append([row["model"], *_figures(row, own), *against(tests)])
        lines[-1] += [f"{times[row['model']]:.1f}"] if times else []
    head = ["before the classifier", "clean", "mean", "without noise", "Gaussian", "shot", "impulse"]
    head += ["cells better", "worse", "worst cell", "mean against", "p"] + ["time"] * bool(times)
    return table(head, lines)


def attacked(store: ResultsStore) -> str:
    """The table of rightly classified images, clean and under attack, with each suite's verdict."""
    cells = store.to_frame()
    cells["cell"] = cells["threat"].where(cells["kind"] == "attack", "clean")
    lines = []
    for model, rows_of_model in cells.groupby("model", sort=False):
        found = rows_of_model.set_index("cell")
        texts = [
            f"{row['correct']} of {row['images']}" + (f" ({row['verdict']})" if row["verdict"] else "")
            for row in (found.loc[cell] for cell in cells["cell"].unique())
        ]
        lines.append([str(model), *texts])
    return table(["before the classifier", *cells["cell"].unique()], lines)


def _figures(row: dict[str, Any], cells: pd.DataFrame) -> list[str]:
    by = cells.groupby("condition")["accuracy"].mean() * 100
    quiet = by[[name for name in by.index if name not in NOISE]].mean()
    return [_number(value) for value in (100 * row["clean"], by.mean(), quiet, *by.reindex(list(NOISE)))]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def against(tests: pd.DataFrame) -> list[str]:
    """Cells significantly better and worse than the baseline's, the worst; the mean's difference, interval and p."""
    single = tests[(tests["level"] == "cell") & (tests["kind"] == "corruption")]
    whole = tests[(tests["level"] == "headline") & tests["label"].str.endswith(" mean")]
    if single.empty or whole.empty:
        return [""] * 5
    clear = single[single["p_holm"] < 0.05]["difference"]
    worst = single.loc[single["difference"].idxmin()]
    mean = whole.iloc[0]
    return [
        str((clear > 0).sum()),
        str((clear < 0).sum()),
        f"{worst['label']} {100 * worst['difference']:+.1f}",
        f"{100 * mean['difference']:+.1f} [{100 * mean['low']:.1f}, {100 * mean['high']:.1f}]",
        f"{mean['p_holm']:.2g}",
    ]


def corrupted(dataset: ImageDataset, folder: Path, workers: int = 1) -> Path:
    """Write the corrupted images once, for all rows."""
    write_corruptions(dataset, folder, names=list(CORRUPTION_GROUPS["standard"]), workers=workers)
    return folder


def _arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--network", default="resnet20", help="resnet20, resnet32 or resnet44 (default: %(default)s)"
    )
    options.add_argument("--checkpoint", default=None, help="a classifier of ours instead of a published one")
    options.add_argument(
        "--seed", type=int, default=0, help="that the classifier was trained with (default: %(default)s)"
    )
    options.add_argument(
        "--convolutions", type=Path, help="folder of denoisers that long_denoisers.py wrote, for their rows"
    )
    options.add_argument(
        "--batch-size", type=int, default=32, help="images in one pass (default: %(default)s)"
    )
    options.add_argument(
        "--corrupted", type=Path, help="corrupted versions of these images, instead of making them"
    )
    options.add_argument("--rows", nargs="*", default=None, help="only these (default: all)")
    options.add_argument("--noise", action="store_true", help="only the three noise corruptions")
    options.add_argument("--attacked", nargs="*", default=[], metavar="RADIUS", help="Linf radii, of 255")
    options.add_argument(
        "--severities", nargs="*", type=int, default=[1, 2, 3, 4, 5], help="(default: %(default)s)"
    )
    options.add_argument(
        "--images", type=int, default=COUNT, help="test images from 1,000 on (default: %(default)s)"
    )
    options.add_argument("--times", action="store_true", help="measure the time of each row as well")
    options.add_argument("--device", default=None, help="(default: the accelerator if there is one)")
    options.add_argument("--baseline", default="bare", help="row to compare with (default: %(default)s)")
    options.add_argument(
        "--work", type=Path, default=Path("runs/plugin"), help="stores and images (default: %(default)s)"
    )
    return options.parse_args()


def main() -> None:
    """Run from the command line."""
    arguments = _arguments()
    torch.set_num_threads(1)
    device = choose_device(arguments.device)
    whole = load_dataset(arguments.data, "test")
    count = arguments.images if arguments.corrupted else max(COUNT, arguments.images)
    dataset = whole.subset(list(range(FIRST, FIRST + count)))
    files = arguments.corrupted or corrupted(dataset, arguments.work / "corrupted")
    plan = _plan(arguments)
    if arguments.checkpoint:
        model, network = load_checkpoint(arguments.checkpoint).eval(), "ours"
    else:
        model, network = published(arguments.classifiers, arguments.network), arguments.network
    kind = "attacked-" if arguments.attacked else "noise-" if arguments.noise else ""
    name = f"plugin-{kind}{network}-{arguments.images}"
    model, pool = model.to(device), mixed(files).to(device)
    path = arguments.work / f"{name}.sqlite"
    builders = rows(pool, arguments.convolutions)
    if unknown := set(arguments.rows or ()) - set(builders):
        raise SystemExit(
            f"error: --rows names {', '.join(sorted(unknown))}; the rows are: {', '.join(builders)}."
        )
    for row, build in builders.items():
        if arguments.rows is None or row in arguments.rows:
            own = replace(plan, batch_size=128) if row.startswith(ADAPTED) else plan
            evaluate(
                build(model).to(device),
                dataset,
                own,
                results=path,
                name=Entry(row, arguments.seed),
                corruptions=CorruptionSource(folder=files if plan.corruptions else None),
            )
    with ResultsStore(path, read_only=True) as store:
        times = _times(model, builders, dataset) if arguments.times else {}
        text = attacked(store) if arguments.attacked else measured(store, arguments.baseline, times)
        text += _caption(arguments, network)
    print(text)
    write(arguments.out / f"{name}.md", text)


def _plan(arguments: argparse.Namespace) -> EvaluationPlan:
    plan = EvaluationPlan(clean_images=arguments.images, batch_size=arguments.batch_size)
    if arguments.attacked:
        attacks = tuple(AttackSetting("suite:quick", f"linf {radius}/255") for radius in arguments.attacked)
        return replace(plan, attacks=attacks, attack_images=arguments.images)
    names = NOISE if arguments.noise else CORRUPTION_GROUPS["standard"]
    severities = tuple(arguments.severities)
    return replace(plan, corruptions=names, severities=severities, corruption_images=arguments.images)


def _caption(arguments: argparse.Namespace, network: str) -> str:
    if arguments.attacked:
        return (
            f"\nMade by `python benchmarks/plugin.py --network {network} --images {arguments.images} --attacked "
            f"{' '.join(arguments.attacked)}`. {network}, untouched; images left right by the suite `quick`.\n"
        )
    return (
        f"\nMade by `python benchmarks/plugin.py --network {network}{' --noise' * arguments.noise} "
        f"--images {arguments.images} --severities {' '.join(map(str, arguments.severities))}`. {network}, "
        f"untouched; {arguments.images} test images from 1,000 on; % correct; better, worse, mean and p (clustered by "
        f"image) against `{arguments.baseline}`, after Holm's adjustment. The restoring front-end was primed on "
        "Gaussian noise.\n"
    )


if __name__ == "__main__":
    main()
