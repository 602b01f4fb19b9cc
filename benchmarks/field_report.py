"""Tables of the field-scale study from its stores: networks untouched, fine-tuned, and in robust recipes.

    python benchmarks/field_report.py docs/results/field.sqlite --plugin docs/results/plugin-*.sqlite \
        --figure docs/results/study.png

The stores hold what field.py and, of one network each, plugin.py measured. Clean accuracy is that of all test images,
before untouched networks that of the same 2,000 as the cells of CIFAR-10-C. Models without all 75 cells are named and
left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from common import save_figure, table, write
from plugin import against, measured

from warplca.eval import ResultsStore, compare

CELLS = 75
RECIPES = ("noise", "augmix", "l2-at", "augmix+l2-at", "prime-augment", "augmix-tuned")
ARMS = ("none", "conv", "lca", "warp-lca")
CHAIN = " + cifar10"
TUNED = "tuned-"
CONVOLUTIONS = "convolutions, equal weights, 7000 steps"
ALONE = {"color": "0.35", "marker": "o", "s": 22}
CONVOLUTION = {"facecolors": "none", "edgecolors": "tab:orange", "marker": "o", "s": 70}
OURS = {"color": "tab:blue", "marker": "D", "s": 22}
STYLES = {
    **dict.fromkeys(("alone", "none"), ALONE),
    **dict.fromkeys(("chain, convolutions", "convolution"), CONVOLUTION),
    **dict.fromkeys(("chain, WARP-LCA", "chain", "WARP-LCA"), OURS),
    "plain LCA": {"color": "tab:green", "marker": "v", "s": 22},
}


def frames(stores: list[Path]) -> pd.DataFrame:
    """Return the cells of all stores, of clean images the largest choice only."""
    found = []
    for path in stores:
        with ResultsStore(path, read_only=True) as store:
            found.append(store.to_frame(predictions=True))
    frame = pd.concat(found, ignore_index=True)
    clean = frame[frame["kind"] == "clean"]
    fewer = clean[clean["images"] < clean["images"].max()].index
    return frame.drop(index=fewer)


def whole(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the networks that have every cell, and the names of the others."""
    keys = ["model", "model_seed"]
    counts = frame[frame["kind"] == "corruption"].groupby(keys)["accuracy"].transform("size")
    cells = counts.reindex(frame.index)
    full = frame.assign(cells=cells).groupby(keys)["cells"].transform("max") >= CELLS
    left = sorted({f"{m} (seed {s})" for m, s in frame[~full][keys].itertuples(index=False)})
    return frame[full], left


def names(recipe: str) -> list[str]:
    """What the networks of a recipe are called, RECIPE-ARM, alone and behind the chain."""
    return [f"{recipe}-{arm}{chain}" for arm in ARMS for chain in ("", CHAIN)]


def of_recipe(frame: pd.DataFrame, recipe: str) -> pd.DataFrame:
    """Return the cells of a recipe's networks: the family of tests that are adjusted together."""
    return frame[frame["model"].isin(names(recipe))]


def sections(frame: pd.DataFrame, left: list[str], plugins: list[Path]) -> list[str]:
    """Return the page's parts."""
    parts = []
    networks = {path.stem.removeprefix("plugin-"): whole(frames([path]))[0] for path in plugins}
    for name, some in networks.items():
        parts += [f"### {name}, untouched\n", measured(some, "bare", {})]
    own = frame[(frame["kind"] == "clean") & frame["model"].isin(["quick", f"quick{CHAIN}"])]
    for name, some in own.groupby("model"):
        seeds = some["model_seed"].nunique()
        parts.append(f"All clean images, {name}: {100 * some['accuracy'].mean():.2f} % ({seeds} seeds).\n")
    rivals = [line for name, some in networks.items() for line in against_convolutions(name, some)]
    head = ["network", "where", "WARP-LCA", "convolutions", "difference", "p", "cells better", "worse"]
    if rivals:
        parts.append(f"### WARP-LCA against the convolutional denoiser in its place\n\n{table(head, rivals)}")
    parts.append("### Fine-tuned behind front-ends\n")
    tuned = of_recipe(frame, "tuned")
    parts.append(measured(tuned, f"{TUNED}none", {}))
    pair = tuned[tuned["model"].isin([f"{TUNED}conv", f"{TUNED}warp-lca"])]
    parts.append(f"Against the convolution:\n\n{measured(pair, f'{TUNED}conv', {})}")
    parts.append("### Robust recipes, alone, trained behind the restoring WARP-LCA, and behind the chain\n")
    for recipe in RECIPES:
        some = of_recipe(frame, recipe)
        if len(some):
            baseline = next(name for name in names(recipe) if name in set(some["model"]))
            parts.append(measured(some, baseline, {}))
    if left:
        parts.append(f"Not measured whole: {', '.join(left)}.\n")
    return parts


def against_convolutions(network: str, frame: pd.DataFrame) -> list[list[str]]:
    """Return a line for WARP-LCA alone and one for it in the chain, where a denoiser was measured in its place."""
    lines = []
    for where, ours, theirs in (
        ("alone", "restoring WARP-LCA", CONVOLUTIONS),
        ("in the chain", "chain cifar10", f"chain, {CONVOLUTIONS}"),
    ):
        if theirs in set(frame["model"]):
            both = frame[frame["model"].isin([ours, theirs])]
            means = 100 * both[both["kind"] == "corruption"].groupby("model")["accuracy"].mean()
            better, worse, _, difference, p = against(compare(both, baseline=theirs).tests)
            figures = [f"{means[ours]:.1f}", f"{means[theirs]:.1f}", difference, p, better, worse]
            lines.append([network, where, *figures])
    return lines


def figure(frame: pd.DataFrame, untouched: pd.DataFrame, path: Path) -> None:
    """Draw each corruption of untouched and of fine-tuned networks, and the mean of each recipe."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plugged = by_corruption(
        untouched,
        {
            "alone": "bare",
            "chain, convolutions": f"chain, {CONVOLUTIONS}",
            "chain, WARP-LCA": "chain cifar10",
        },
    )
    arms = {"none": "none", "plain LCA": "lca", "convolution": "conv", "WARP-LCA": "warp-lca"}
    tuned = by_corruption(frame, {name: f"{TUNED}{arm}" for name, arm in arms.items()})
    means = 100 * frame[frame["kind"] == "corruption"].groupby("model")["accuracy"].mean()
    recipes = pd.DataFrame(
        {"alone": means.get(f"{name}-none"), "chain": means.get(f"{name}-none{CHAIN}")} for name in RECIPES
    ).set_axis(list(RECIPES))
    recipes = recipes[recipes["alone"].notna()]
    drawn, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    titles = (
        "(a) untouched, by corruption",
        "(b) fine-tuned, by corruption",
        "(c) recipes, mean of 75 cells",
    )
    for axis, figures, title in zip(
        axes, (plugged, tuned, recipes.sort_values("alone")), titles, strict=True
    ):
        names = [str(name).replace("_", " ") for name in figures.index]
        axis.hlines(names, figures.min(axis=1), figures.max(axis=1), color="0.85", linewidth=3, zorder=1)
        for column in figures.columns:
            axis.scatter(figures[column], names, label=column, zorder=2, **STYLES[column])
        axis.set(title=title, xlabel="% correct")
        axis.grid(axis="x", color="0.92")
        axis.legend(loc="upper left", frameon=False, fontsize=8)
    save_figure(drawn, path)
    plt.close(drawn)


def by_corruption(frame: pd.DataFrame, models: dict[str, str]) -> pd.DataFrame:
    """Return percent by corruption (rows) of these models (columns), the hardest for the first one first."""
    cells = frame[(frame["kind"] == "corruption") & frame["model"].isin(models.values())]
    found = 100 * cells.groupby(["condition", "model"])["accuracy"].mean().unstack()
    chosen = found[list(models.values())].set_axis(list(models), axis=1)
    return chosen.sort_values(next(iter(models)))


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("stores", nargs="+", type=Path)
    options.add_argument("--plugin", nargs="+", type=Path, default=[], help="stores of untouched networks")
    options.add_argument("--out", type=Path, help="a page; default: the screen")
    options.add_argument("--figure", type=Path, help="a PNG; needs --plugin, whose first store it draws")
    arguments = options.parse_args()
    if arguments.figure and not arguments.plugin:
        options.error("--figure needs --plugin, whose first store it draws.")
    frame, left = whole(frames(arguments.stores))
    if arguments.figure:
        figure(frame, whole(frames(arguments.plugin[:1]))[0], arguments.figure)
    text = "\n".join(sections(frame, left, arguments.plugin))
    if arguments.out:
        write(arguments.out, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
