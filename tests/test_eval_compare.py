"""Aggregates and comparisons on tables whose truth is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from warplca.configs.errors import InputError
from warplca.data import ROBUSTBENCH_ORDER, STANDARD_CORRUPTIONS
from warplca.eval import Comparison, ResultsStore, compare
from warplca.eval.compare.aggregate import (
    accuracy_table,
    category_means,
    corruption_means,
    mean_corruption_error,
    severity_means,
)
from warplca.eval.compare.statistics import holm, mcnemar_exact, seed_interval, welch, wilson_interval
from warplca.eval.results.records import CellResult, Condition, ImageSet

IMAGES = 120
CLEAN = Condition("clean", "clean")

# Error in % of a standard WRN-28-10 on CIFAR-10-C, mean over severities, as RobustBench publishes it.
WRN_ERRORS = dict(
    zip(
        STANDARD_CORRUPTIONS,
        (53.0, 41.2, 44.7, 18.5, 49.0, 22.3, 24.4, 18.1, 25.0, 11.2, 6.7, 17.4, 16.2, 28.0, 22.4),
        strict=True,
    )
)


def noise(name: str, severity: int) -> Condition:
    return Condition("corruption", name, severity, source="generator")


def attack(name: str, threat: str) -> Condition:
    return Condition("attack", name, threat=threat)


def image_set(count: int = IMAGES) -> ImageSet:
    return ImageSet(
        "toy", "f", np.arange(count, dtype=np.int32)[::-1], np.arange(count, dtype=np.int16)[::-1] % 10
    )


def save(store: ResultsStore, model: str, condition: Condition, correct: np.ndarray, seed: int = 0) -> None:
    """Store predictions that are right where ``correct`` (in the order of image numbers) is true."""
    images = image_set(len(correct))
    right = np.asarray(correct, dtype=bool)[::-1]
    predictions = np.where(right, images.labels, (images.labels + 1) % 10)
    store.save(CellResult(model, seed, "f", condition, images, 0, predictions, np.full(len(right), 0.8)))


def first(count: int, total: int = IMAGES) -> np.ndarray:
    return np.arange(total) < count


@pytest.fixture
def store() -> ResultsStore:
    """``good`` is right where ``base`` is, and on more; under attack each attack breaks other images."""
    store = ResultsStore()
    for model, gain in (("base", 0), ("good", 30)):
        save(store, model, CLEAN, first(80 + gain))
        for severity in (3, 5):
            save(store, model, noise("gaussian_noise", severity), first(70 - 4 * severity + gain))
            save(store, model, noise("brightness", severity), first(75 - severity + gain))
        save(store, model, attack("fgsm", "linf 8/255"), first(60 + gain))
        save(store, model, attack("pgd", "linf 8/255"), ~first(40))
    return store


def test_summary_gives_each_figure_with_its_interval(store: ResultsStore) -> None:
    summary = compare(store, baseline="base").summary.set_index("model")
    assert list(summary.index) == ["base", "good"]
    clean = summary.loc["good", ["clean", "clean low", "clean high"]].tolist()
    assert clean == pytest.approx(wilson_interval(110, IMAGES))
    expected = np.mean([58, 50, 72, 70]) / IMAGES
    assert summary.loc["base", "corruption mean"] == pytest.approx(expected)
    assert summary.loc["base", "corruption mean low"] < expected < summary.loc["base", "corruption mean high"]
    assert summary.loc["base", "noise mean"] == pytest.approx(54 / IMAGES)
    assert summary.loc["base", "weather mean"] == pytest.approx(71 / IMAGES)
    assert "mce" not in summary.columns


def test_the_worst_case_counts_images_that_withstand_every_attack(store: ResultsStore) -> None:
    summary = compare(store, baseline="base").summary.set_index("model")
    assert summary.loc["base", "worst linf 8/255"] == pytest.approx(20 / IMAGES)
    assert summary.loc["good", "worst linf 8/255"] == pytest.approx(50 / IMAGES)
    cells = store.to_frame()
    single = cells[(cells["kind"] == "attack") & (cells["model"] == "base")]["accuracy"].min()
    assert summary.loc["base", "worst linf 8/255"] <= single


def test_cell_tests_are_exact_mcnemar_with_holm(store: ResultsStore) -> None:
    tests = compare(store, baseline="base").tests
    cells = tests[tests["level"] == "cell"].set_index("label")
    assert len(cells) == 7
    row = cells.loc["gaussian_noise 3"]
    assert (row["gained"], row["lost"], row["test"]) == (30, 0, "exact McNemar")
    assert row["p"] == mcnemar_exact(30, 0)
    assert row["difference"] == pytest.approx(30 / IMAGES)
    assert row["low"] < 30 / IMAGES < row["high"]
    assert cells["p_holm"].tolist() == pytest.approx(holm(cells["p"]).tolist())
    assert cells.loc["pgd linf 8/255", "p"] == 1.0


def test_aggregates_are_tested_by_image(store: ResultsStore) -> None:
    tests = compare(store, baseline="base").tests
    row = tests[(tests["label"] == "corruption mean")].iloc[0]
    assert (row["level"], row["test"], row["cells"], row["images"]) == (
        "headline",
        "permutation by image",
        4,
        IMAGES,
    )
    assert row["difference"] == pytest.approx(30 / IMAGES)
    assert row["p"] < 0.001


def test_only_cells_that_all_models_have_take_part(store: ResultsStore) -> None:
    save(store, "base", noise("contrast", 3), first(10))
    save(store, "late", CLEAN, first(100))
    comparison = compare(store, baseline="base")
    assert comparison.left_out == (
        "gaussian_noise 3",
        "brightness 3",
        "gaussian_noise 5",
        "brightness 5",
        "fgsm linf 8/255",
        "pgd linf 8/255",
        "contrast 3",
    )
    assert set(comparison.cells["condition"]) == {"clean"}
    assert "7 cells were left out" in comparison.to_text()


def test_the_largest_shared_choice_of_images_is_used(store: ResultsStore) -> None:
    for model in ("base", "good"):
        save(store, model, CLEAN, first(40, 60))
    save(store, "good", CLEAN, first(200, 240))
    comparison = compare(store, baseline="base")
    assert comparison.summary["clean images"].tolist() == [IMAGES, IMAGES]


def test_cells_on_different_images_are_compared_on_the_common_ones() -> None:
    store = ResultsStore()
    for model in ("base", "good"):
        save(store, model, attack("fgsm", "l2 0.5"), first(100, 120))
        save(store, model, attack("pgd", "l2 0.5"), first(30, 50))
    summary = compare(store, baseline="base").summary
    assert summary["worst l2 0.5 images"].tolist() == [50, 50]
    assert summary["worst l2 0.5"].tolist() == pytest.approx([30 / 50, 30 / 50])


def _trained(store: ResultsStore, model: str, clean: Sequence[int]) -> None:
    for seed, count in enumerate(clean):
        save(store, model, CLEAN, first(count), seed)
        save(store, model, noise("fog", 1), first(count - 20), seed)
        save(store, model, noise("fog", 2), first(count - 30), seed)


def test_three_seeds_make_it_a_claim_about_methods() -> None:
    store = ResultsStore()
    _trained(store, "base", (80, 84, 79))
    _trained(store, "good", (90, 88, 93))
    comparison = compare(store, baseline="base")
    assert comparison.about_methods
    row = comparison.tests[
        (comparison.tests["level"] == "seeds") & (comparison.tests["label"] == "clean")
    ].iloc[0]
    interval, pvalue = welch([90 / 120, 88 / 120, 93 / 120], [80 / 120, 84 / 120, 79 / 120])
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(interval)
    assert row["p"] == pytest.approx(pvalue)
    assert row["p"] == pytest.approx(stats.ttest_ind([90, 88, 93], [80, 84, 79], equal_var=False)[1])
    base = comparison.summary.iloc[0]
    expected = seed_interval([80 / 120, 84 / 120, 79 / 120])
    assert (base["clean"], base["clean low"], base["clean high"]) == pytest.approx(expected)
    assert "at least 3 seeds" in comparison.to_text()
    assert "not the methods" not in comparison.to_text()


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_seeds_compare_networks_and_the_text_says_so(seeds: int) -> None:
    store = ResultsStore()
    _trained(store, "base", (80, 84, 79))
    _trained(store, "good", (90, 88)[:seeds])
    comparison = compare(store, baseline="base")
    assert not comparison.about_methods
    assert "these trained networks, not the methods" in comparison.to_text()
    assert "seeds" not in set(comparison.tests["level"])


def test_text_fits_a_terminal_and_flatters_nobody(store: ResultsStore) -> None:
    rng = np.random.default_rng(0)
    for model in ("base", "good", "a model with quite a long name that goes on and on"):
        for threat in ("linf 1/255", "linf 2/255", "linf 4/255", "l2 0.5", "l1 12"):
            save(store, model, attack("pgd", threat), rng.random(IMAGES) < 0.5)
        if model.startswith("a"):
            for condition in {Condition(*row) for row in _conditions(store)}:
                save(store, model, condition, first(70) if condition.kind != "attack" else first(5))
    text = compare(store, baseline="base").to_text()
    assert max(map(len, text.splitlines())) <= 110
    words = " ".join(text.split())
    assert re.search(r"- good: clean \+25\.0 points \[\+\d\d\.\d, \+\d\d\.\d\], better \(p < 0\.001\)", words)
    assert "no significant difference" in text
    assert "these trained networks, not the methods" in words


def _conditions(store: ResultsStore) -> list[tuple[str, str, int, str, str]]:
    columns = ["kind", "condition", "severity", "threat", "source"]
    return list(store.to_frame()[columns].itertuples(index=False, name=None))


def test_tables_and_paths_compare_like_the_store(store: ResultsStore, tmp_path: Path) -> None:
    expected = compare(store, baseline="base")
    frame = store.to_frame(predictions=True)
    ResultsStore.from_frame(frame, tmp_path / "r.sqlite").close()
    for source in (frame, tmp_path / "r.sqlite", str(tmp_path / "r.sqlite")):
        comparison = compare(source, baseline="base")
        assert isinstance(comparison, Comparison)
        pd.testing.assert_frame_equal(comparison.tests, expected.tests)
        assert comparison.to_text() == expected.to_text()


def test_bad_comparisons_are_refused(store: ResultsStore) -> None:
    with pytest.raises(InputError, match="unknown baseline model 'bass' in the results; did you mean 'base'"):
        compare(store, baseline="bass")
    with pytest.raises(InputError, match="unknown data set 'cifar' in the results"):
        compare(store, baseline="base", dataset="cifar")
    with pytest.raises(InputError, match="no predictions, which the paired tests need"):
        compare(store.to_frame(), baseline="base")
    with pytest.raises(InputError, match="no finished cells: run `evaluate` first"):
        compare(ResultsStore(), baseline="base")
    save(store, "elsewhere", noise("snow", 1), first(5))
    with pytest.raises(InputError, match="share no cell"):
        compare(store, baseline="base")


def _grid(errors: dict[str, float], model: str = "m") -> pd.DataFrame:
    """One network whose error grows with severity around a given mean, in %."""
    rows = [
        {
            "model": model,
            "model_seed": 0,
            "kind": "corruption",
            "condition": name,
            "severity": severity,
            "threat": "",
            "accuracy": 1 - error / 100 * (severity / 3),
        }
        for name, error in errors.items()
        for severity in (1, 2, 3, 4, 5)
    ]
    return pd.DataFrame(rows)


def test_published_mean_accuracy_comes_out() -> None:
    frame = _grid(WRN_ERRORS)
    assert 100 * corruption_means(frame)["m", 0] == pytest.approx(73.46, abs=0.01)
    assert mean_corruption_error(frame)["m", 0] == pytest.approx(26.54, abs=0.01)


def test_extras_and_chains_never_enter_benchmark_figures() -> None:
    frame = _grid(WRN_ERRORS | {"saturate": 60.0, "contrast+jpeg_compression": 60.0})
    assert mean_corruption_error(frame)["m", 0] == pytest.approx(26.54, abs=0.01)
    assert list(accuracy_table(frame).index) == [
        *STANDARD_CORRUPTIONS,
        "saturate",
        "contrast+jpeg_compression",
    ]


def test_an_incomplete_grid_has_no_mce() -> None:
    frame = _grid(WRN_ERRORS).iloc[:-1]
    with pytest.raises(InputError, match="mCE needs the 15 standard corruptions at 5 severities"):
        mean_corruption_error(frame)


def test_both_orders_hold_the_same_fifteen() -> None:
    assert len(set(STANDARD_CORRUPTIONS)) == 15
    assert set(ROBUSTBENCH_ORDER) == set(STANDARD_CORRUPTIONS)
    table = accuracy_table(_grid(WRN_ERRORS), order=ROBUSTBENCH_ORDER)
    assert list(table.index) == list(ROBUSTBENCH_ORDER)
    assert list(table.columns) == [1, 2, 3, 4, 5]


def test_severity_and_category_means() -> None:
    frame = _grid({"fog": 9.0, "gaussian_noise": 30.0, "shot_noise": 60.0})
    assert severity_means(frame).loc[("m", 0), 3] == pytest.approx(1 - 0.33)
    means = category_means(frame).loc[("m", 0)]
    assert means["noise"] == pytest.approx(0.55)


def test_a_table_of_several_networks_is_refused() -> None:
    frame = pd.concat([_grid({"fog": 9.0}), _grid({"fog": 8.0}, "other")])
    with pytest.raises(InputError, match="occurs twice"):
        accuracy_table(frame)
