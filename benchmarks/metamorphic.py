"""What a suite of attacks says of a network in every disguise: the true figure, or no trust.

    python benchmarks/metamorphic.py --network nets.py:resnet20 --data cifar10.npz --threat "linf 2/255" --images 24

``nets.py:resnet20`` is a function of your own that gives a classifier of pixels in [0, 1]; without one the shipped
classifier is measured. Each row is kept as it comes in ``verdict.json``, and the page ``verdict.md`` is made of all of
them: measured networks are not measured again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from common import table, write, write_json
from disguises import DISGUISES, HONEST
from torch import Tensor, nn

from warplca.attacks import SuiteResult, SuiteSession, run_suite
from warplca.attacks.suite.masking import allowance
from warplca.data import load_dataset
from warplca.models import load_checkpoint

Row = dict[str, Any]
PLAIN = "as it is"
SECTION = ("network", "threat", "suite", "images")

INTRODUCTION = """# Networks in disguise

A network whose logits were multiplied, shifted, mapped monotonically or rippled, or whose gradients were cut or turned,
gives the same answers and is as robust as before. A suite must find the true figure or refuse its trust. An honest
change (softplus for rectifiers, norms folded into convolutions, a median filter, double precision) is to
be trusted. All disguises: `benchmarks/disguises.py`.

*True, at most*: images that neither the suite nor the adversarial images of the undisguised network broke. *Left*: what
the suite says. A *fault* is an inflated figure (by more than 2 % and more than one image) that is trusted, or an honest
network that is not. All images are test images that the network classifies rightly; seconds are processor time of
one thread of a busy machine. The networks are the published ResNets for CIFAR-10 of
github.com/akamaster/pytorch_resnet_cifar10, in a file `nets.py` of your own.
"""


def network_of(options: argparse.Namespace) -> tuple[str, nn.Module]:
    """Name and network: the user's function called, or the checkpoint."""
    if not options.network:
        return Path(options.checkpoint).name, load_checkpoint(options.checkpoint).eval()
    path, _, function = options.network.partition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not function:
        raise SystemExit(f"{options.network} cannot be imported; expected FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return function, getattr(module, function)().eval()


def right_images(network: nn.Module, source: str, count: int, batch_size: int = 100) -> tuple[Tensor, Tensor]:
    """The first test images that the network classifies rightly."""
    images, labels = load_dataset(source, "test").subset(range(4 * count)).tensors()
    with torch.no_grad():
        predicted = torch.cat([network(part).argmax(dim=1) for part in images.split(batch_size)])
    right = predicted == labels
    return images[right][:count], labels[right][:count]


def measured(
    name: str, model: nn.Module, plain: SuiteResult | None, labels: Tensor, images: Tensor, key: Row
) -> tuple[Row, SuiteResult]:
    """One network judged, and its row."""
    started = time.process_time()
    result = run_suite(
        model, images, labels, key["threat"], key["suite"], session=SuiteSession(progress=False)
    )
    seconds = time.process_time() - started
    with torch.no_grad():
        stands = model((plain or result).adversarial).argmax(dim=1) == labels
    left, true = int((~result.success).sum()), int((~result.success & stands).sum())
    trusted, honest = result.verdict.trusted, name == PLAIN or name in HONEST
    inflated = left > true + allowance(len(labels))
    row = {
        **key,
        "disguise": name,
        "true": true,
        "left": left,
        "trusted": trusted,
        "failed": [check.name for check in result.verdict.checks if not check.passed],
        "seconds": round(seconds),
        "fault": inflated if trusted else honest,
    }
    return row, result


def page(rows: list[Row]) -> str:
    """All rows in tables, a section for each network, threat and suite."""
    parts = [INTRODUCTION]
    faults = sum(row["fault"] for row in rows)
    parts.append(f"{len(rows)} rows, {faults} faults.\n")
    for key, group in groupby(rows, key=lambda row: [row[part] for part in SECTION]):
        network, threat, suite, images = key
        lines = [
            (
                row["disguise"],
                f"{row['true']} of {images}",
                row["left"],
                "trusted" if row["trusted"] else "not trusted: " + ", ".join(row["failed"]),
                row["seconds"],
                "**fault**" if row["fault"] else "",
            )
            for row in group
        ]
        parts.append(f"## {network}, {threat}, `{suite}`\n")
        parts.append(
            f"    python benchmarks/metamorphic.py --network nets.py:{network} --data cifar10.npz "
            f'--threat "{threat}" --suite {suite} --images {images}\n'
        )
        parts.append(table(("network", "true, at most", "left", "verdict", "s", ""), lines))
    return "\n".join(parts)


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="", help="FILE.py:FUNCTION of your own")
    parser.add_argument("--checkpoint", default="cifar10-slim-warp-lca")
    parser.add_argument("--data", default="cifar10-subset", help="a source as in `warplca train`")
    parser.add_argument("--images", type=int, default=24, help="rightly classified test images")
    parser.add_argument("--threat", default="linf 1/255")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="(default: %(default)s)")
    known = [*(HONEST | DISGUISES)]
    parser.add_argument("--disguises", nargs="+", choices=known, default=known)
    options = parser.parse_args()
    kept = options.out / "verdict.json"
    rows: list[Row] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    name, network = network_of(options)
    images, labels = right_images(network.requires_grad_(False), options.data, options.images)
    key = dict(zip(SECTION, (name, options.threat, options.suite, len(images)), strict=True))
    done = {row["disguise"] for row in rows if key.items() <= row.items()}
    plain = None
    for disguise in [PLAIN, *options.disguises]:
        if disguise in done and disguise != PLAIN:
            continue
        model = network if disguise == PLAIN else (HONEST | DISGUISES)[disguise](network).eval()
        row, result = measured(disguise, model, plain, labels, images, key)
        plain = plain or result
        if disguise not in done:
            rows.append(row)
        rows.sort(key=lambda row: [str(row[part]) for part in SECTION])
        write_json(kept, rows)
        write(options.out / "verdict.md", page(rows))
        print(row, flush=True)


if __name__ == "__main__":
    main()
