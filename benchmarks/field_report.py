"""Tables of the field-scale study from its stores: networks untouched behind a chain, and in robust recipes.

    python benchmarks/field_report.py docs/results/field --out docs/results/field.md

The folder's stores hold what field.py and plugin.py measured. Clean accuracy is that of all test images; the cells of
CIFAR-10-C are those of 2,000 images. Models without all 75 cells are named and left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from common import write
from plugin import measured

from warplca.eval import ResultsStore

CELLS = 75
RECIPES = ("noise", "augmix", "l2-at", "augmix+l2-at", "prime-augment")
CHAIN = " + cifar10"


def frames(folder: Path) -> pd.DataFrame:
    """Return the cells of all stores of field.py, of clean images the largest choice only."""
    found = []
    for path in sorted(folder.glob("*.sqlite")):
        if not path.stem.startswith(("plugin", "certified")):
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
    return frame[full], left


def sections(folder: Path) -> list[str]:
    """Return the page's parts."""
    frame, left = whole(frames(folder))
    parts = ["## Networks of ours, untouched behind the chain\n"]
    seeds = frame[frame["model"] == f"quick{CHAIN}"]["model_seed"].unique()
    own = frame[frame["model"].isin(["quick", f"quick{CHAIN}"]) & frame["model_seed"].isin(seeds)]
    parts.append(f"`quick94`, seeds {', '.join(map(str, seeds))}.\n\n{measured(own, 'quick', {})}")
    parts.append("## Published networks, untouched behind the chain\n")
    for path in sorted(folder.glob("plugin-resnet*.sqlite")):
        with ResultsStore(path, read_only=True) as store:
            published, missing = whole(store.to_frame(predictions=True))
            left += [f"{path.stem}: {name}" for name in missing]
            parts.append(f"{path.stem.split('-')[1]}\n\n{measured(published, 'bare', {})}")
    parts.append("## Robust recipes, alone, trained behind the restoring WARP-LCA, and behind the chain\n")
    for recipe in RECIPES:
        names = [f"{recipe}-{arm}{chain}" for chain in ("", CHAIN) for arm in ("none", "warp-lca")]
        some = frame[frame["model"].isin(names)]
        if f"{recipe}-none" in set(some["model"]):
            parts.append(measured(some, f"{recipe}-none", {}))
    if left:
        parts.append(f"Not measured whole: {', '.join(left)}.\n")
    return parts


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("folder", type=Path)
    options.add_argument("--out", type=Path, help="a page; default: the screen")
    arguments = options.parse_args()
    text = "\n".join(sections(arguments.folder))
    if arguments.out:
        write(arguments.out, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
