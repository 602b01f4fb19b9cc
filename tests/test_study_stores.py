"""The stores of the studies: made small without loss, and the source of the README's table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from warplca.eval import ResultsStore
from warplca.eval.results.records import CellResult, Condition, ImageSet

ROOT = Path(__file__).parents[1]
KEY = ["model", "model_seed", "condition", "severity"]


def run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benchmarks" / script, *words]
    return subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)


def written(path: Path, name: str, generator: np.random.Generator, models: tuple[str, ...]) -> Path:
    """A store of two models on the same 40 images, whose files of corrupted images have a name of their own."""
    images = ImageSet(
        name, "abc", np.arange(40, dtype=np.int32) * 3, (np.arange(40) * 7 % 10).astype(np.int16)
    )
    with ResultsStore(path) as store:
        for model in models:
            for severity in (0, 1, 2):
                kind = (
                    ("corruption", "fog", severity, "", f"files {path.stem}")
                    if severity
                    else ("clean", "clean")
                )
                predictions = generator.integers(0, 10, 40).astype(np.int16)
                confidences = generator.random(40, dtype=np.float32)
                condition, facts = Condition(*kind), {"seed": 0, "seconds": 1.0, "notes": ""}
                store.save(
                    CellResult(
                        model,
                        1,
                        model,
                        condition,
                        images,
                        predictions=predictions,
                        confidences=confidences,
                        **facts,
                    )
                )
    return path


def answers(path: Path) -> dict[tuple[object, ...], dict[int, tuple[int, int]]]:
    """Label and prediction of every image of every cell, whatever the order of the images."""
    with ResultsStore(path, read_only=True) as store:
        frame = store.to_frame(predictions=True)
    return {
        tuple(row[name] for name in KEY): dict(
            zip(row["indices"], zip(row["labels"], row["predictions"], strict=True), strict=True)
        )
        for row in frame.to_dict("records")
    }


def test_a_small_store_answers_for_every_image_as_before_and_takes_more_in(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    first = written(tmp_path / "first.sqlite", "here", generator, ("a", "b"))
    second = written(tmp_path / "second.sqlite", "there", generator, ("c",))
    small, both = tmp_path / "small.sqlite", tmp_path / "both.sqlite"
    assert run("slim_store.py", small, first, "--dataset", "one").returncode == 0
    assert answers(small) == answers(first)
    facts = ["correct", "mean_confidence", "ece", "created"]
    frames = [ResultsStore(path, read_only=True).to_frame()[facts] for path in (small, first)]
    assert frames[0].equals(frames[1])
    assert run("slim_store.py", both, small, first, second, "--dataset", "one").returncode == 0
    assert answers(both) == answers(first) | answers(second)
    with ResultsStore(both, read_only=True) as store:
        assert set(store.to_frame()["source"]) == {"", "files"}
        assert store.to_frame()["image_set"].nunique() == 1
    refused = run("slim_store.py", both, first)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {both} exists; give a new file")


@pytest.mark.slow
def test_the_readme_has_the_table_that_the_stores_give(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", page)
    assert run("readme_table.py", page).returncode == 0
    assert page.read_text(encoding="utf-8") == (ROOT / "README.md").read_text(encoding="utf-8")
