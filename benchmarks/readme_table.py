"""The main table of the README, from the stores of the studies.

    python benchmarks/readme_table.py README.md

Replaces what stands between the comments "results" and "/results".
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from common import table, write
from field_report import CHAIN, CONVOLUTIONS, frames, of_recipe
from plugin import against

from warplca.configs import InputError
from warplca.eval import compare

RESULTS = Path("docs/results")
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"


@dataclass(frozen=True)
class Trio:
    """Models of one store: without a front-end, with a convolution in its place ("" for none), and with WARP-LCA.

    Attributes:
        title: What they are.
        store: Name of the store.
        models: Their names there.
        rows: Figures: "clean", "mean" of CIFAR-10-C, a corruption, or a threat, of which the worst attack counts.
    """

    title: str
    store: str
    models: tuple[str, str, str]
    rows: tuple[str, ...] = ("clean", "mean")


PLUGGED = ("bare", f"chain, {CONVOLUTIONS}", "chain cifar10")
TRIOS = (
    Trio(
        "**Our networks, not retrained** (three seeds)", "field", ("quick", "", f"quick{CHAIN}"), ("clean",)
    ),
    Trio("", "plugin-quick", PLUGGED, ("mean", "gaussian_noise")),
    Trio("**Published ResNet-20, not retrained** (2,000 images)", "plugin-resnet20", PLUGGED),
    Trio(
        "**Our networks, fine-tuned** (three seeds)", "field", ("tuned-none", "tuned-conv", "tuned-warp-lca")
    ),
    Trio(
        "**Trained with AugMix** (right: behind WARP-LCA and the chain)",
        "field",
        ("augmix-none", "", "augmix-warp-lca + cifar10"),
    ),
    Trio("Small networks of 82 %", "study-small-standard", ("none", "conv", "warp-lca"), ("mean",)),
    Trio(
        "The same, trained adversarially",
        "study-small-fast-verdicts",
        ("none", "conv", "warp-lca"),
        ("linf 4/255",),
    ),
)


def figure(cells: pd.DataFrame, row: str) -> str:
    """One figure of a model in percent."""
    if row == "mean":
        chosen = cells[cells["kind"] == "corruption"]
    elif row in set(cells["threat"]):
        return f"{100 * cells[cells['threat'] == row]['accuracy'].min():.0f}"
    else:
        chosen = cells[cells["condition"] == row]
    if chosen.empty:
        raise InputError(f"the stores lack {row} of {cells['model'].unique()}; measure it first.")
    return f"{100 * chosen['accuracy'].mean():.1f}"


def lines(trio: Trio) -> list[list[str]]:
    """The table's rows of one trio."""
    frame = frames([RESULTS / f"{trio.store}.sqlite"])
    baseline, _, ours = trio.models
    family = of_recipe(frame, baseline.removesuffix("-none")) if "-" in baseline else frame
    found = []
    for number, row in enumerate(trio.rows):
        words = {"mean": "CIFAR-10-C", "gaussian_noise": "its Gaussian noise"}.get(row, row)
        if row == "mean":
            tests = compare(family, baseline=baseline).tests
            better, worse, *_ = against(tests[tests["model"] == ours])
            words += f" ({better} of 75 better, {worse} worse)"
        if " " in row:
            words = f"attacked at {row.replace('linf', 'Linf')} (upper bounds)"
        title = f"{trio.title}: {words}" if trio.title and number == 0 else words
        cells = [figure(frame[frame["model"] == name], row) if name else "" for name in trio.models]
        if row == "mean":
            cells = [f"**{cell}**" if cell == max(cells) else cell for cell in cells]
        found.append([title, *cells])
    return found


def main() -> None:
    """Run from the command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    page = Path(sys.argv[1])
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    head = ["CIFAR-10, % correct", "without", "convolution", "WARP-LCA"]
    made = table(head, [line for trio in TRIOS for line in lines(trio)])
    made = made.replace("| ", "|").replace(" |", "|")  # the page has few words
    write(page, before + BEGIN + made + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
