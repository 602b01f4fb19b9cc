"""Tables of the field-scale study from its stores: networks untouched behind a chain, and in robust recipes.

    python benchmarks/field_report.py docs/results/field.sqlite --figure docs/results/study.png

The stores hold what field.py measured. Clean accuracy is that of all test images; the cells of CIFAR-10-C are those of
2,000 images. Models without all 75 cells are named and left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from common import save_figure, write
from plugin import measured

from warplca.eval import ResultsStore

CELLS = 75
RECIPES = ("noise", "augmix", "l2-at", "augmix+l2-at", "prime-augment")
CHAIN = " + cifar10"


def frames(stores: list[Path]) -> pd.DataFrame:
    """Return the cells of all stores, of clean images the largest choice only."""
    found = []
    for path in stores:
        with ResultsStore(path, read_only=True) as store:
            found.append(store.to_frame(predictions=True))
    frame = pd.concat(found, ignore_index=True)
    clean = frame[frame["kind"] == "clean"]
    fewer = clean[clean["images"] < clean["images"].max()].index
    return frame[frame["kind"].isin(["clean", "corruption"])].drop(index=fewer)


def whole(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the networks that have every cell, and the names of the others."""
    keys = ["model", "model_seed"]
    counts = frame[frame["kind"] == "corruption"].groupby(keys)["accuracy"].transform("size")
    cells = counts.reindex(frame.index)
    full = frame.assign(cells=cells).groupby(keys)["cells"].transform("max") >= CELLS
    left = sorted({f"{m} (seed {s})" for m, s in frame[~full][keys].itertuples(index=False)})
    frame = frame[full]
    chained = frame[frame["model"] == f"quick{CHAIN}"]["model_seed"].unique()
    lacking = (frame["model"] == "quick") & ~frame["model_seed"].isin(chained)  # a pair has both
    return frame[~lacking], left


def sections(frame: pd.DataFrame, left: list[str]) -> list[str]:
    """Return the page's parts."""
    parts = ["## Networks of ours, untouched behind the chain\n"]
    own = frame[frame["model"].isin(["quick", f"quick{CHAIN}"])]
    seeds = own["model_seed"].unique()
    parts.append(f"`quick94`, seeds {', '.join(map(str, seeds))}.\n\n{measured(own, 'quick', {})}")
    parts.append("## Robust recipes, alone, trained behind the restoring WARP-LCA, and behind the chain\n")
    for recipe in RECIPES:
        names = [f"{recipe}-{arm}{chain}" for chain in ("", CHAIN) for arm in ("none", "warp-lca")]
        some = frame[frame["model"].isin(names)]
        if f"{recipe}-none" in set(some["model"]):
            parts.append(measured(some, f"{recipe}-none", {}))
    if left:
        parts.append(f"Not measured whole: {', '.join(left)}.\n")
    return parts


def figure(frame: pd.DataFrame, path: Path) -> None:
    """Draw each corruption of our network, and the mean of each recipe, alone and behind the chain."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = frame[frame["kind"] == "corruption"]
    own = 100 * cells.groupby(["model", "condition"])["accuracy"].mean().unstack(0)
    own = own[["quick", f"quick{CHAIN}"]].sort_values("quick")
    means = 100 * cells.groupby("model")["accuracy"].mean()
    recipes = {"plain": "quick", **{recipe: f"{recipe}-none" for recipe in RECIPES}}
    both = pd.DataFrame({"alone": {name: means[model] for name, model in recipes.items() if model in means}})
    both["chain"] = [means.get(f"{recipes[name]}{CHAIN}") for name in both.index]
    drawn, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    titles = ("quick94, by corruption", "by recipe, mean of 75 cells")
    for axis, table, title in zip(axes, (own, both.sort_values("alone")), titles, strict=True):
        alone, chain = table.iloc[:, 0], table.iloc[:, 1]
        names = [str(name).replace("_", " ") for name in table.index]
        axis.hlines(names, alone, chain, color="0.75", linewidth=3, zorder=1)
        axis.scatter(alone, names, color="0.35", label="alone", zorder=2)
        axis.scatter(chain, names, color="tab:blue", label="behind the chain", zorder=3)
        axis.set(title=title, xlabel="% correct")
        axis.grid(axis="x", color="0.92")
    axes[0].legend(loc="upper left", frameon=False)
    save_figure(drawn, path)
    plt.close(drawn)


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("stores", nargs="+", type=Path)
    options.add_argument("--out", type=Path, help="a page; default: the screen")
    options.add_argument("--figure", type=Path, help="a PNG")
    arguments = options.parse_args()
    frame, left = whole(frames(arguments.stores))
    if arguments.figure:
        figure(frame, arguments.figure)
    text = "\n".join(sections(frame, left))
    if arguments.out:
        write(arguments.out, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
