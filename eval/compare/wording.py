"""A comparison in plain words and plain tables, claiming no more than the tests show."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..results.certificates import meaning_sentence
from ..results.suites import NOT_ASSESSED, bounds_sentence, suite_rows, trust_of

SEEDS_FOR_METHODS = 3

PROVEN = "proven"
"""First word of the names of certified accuracies."""


@dataclass(frozen=True)
class Comparison:
    """Models beside a baseline, on the same images.

    An attack that does not apply to a model leaves its worst case to the others; such a cell is not tested.

    Attributes:
        baseline: Name of the model that the others are compared with.
        dataset: Name of the data set.
        summary: One row for each model: ``model``, ``seeds``, and for every figure (``clean``,
            ``corruption mean``, ``worst linf 8/255`` ...) its value from 0 to 1, ``... low``, ``... high`` and
            ``... images``; ``clean ece``; ``mce`` in % where all 75 standard cells were measured.
        tests: One row for each model but the baseline and each cell, aggregate and, from three seeds on,
            claim about methods (column ``level``): accuracies, ``difference`` with ``low`` and ``high`` (95 %),
            ``p``, ``p_holm``, ``test``, ``images``.
        cells: The rows of every network in every cell that took part, without arrays; ``clean_accuracy`` is
            that of the same images as they were (NaN where some were not measured clean).
        left_out: Labels of cells that not every model has, and of threats under which some model met no attack.
        seeds: Smallest number of training seeds among the models.
    """

    baseline: str
    dataset: str
    summary: pd.DataFrame
    tests: pd.DataFrame
    cells: pd.DataFrame
    left_out: tuple[str, ...]
    seeds: int

    @property
    def verdicts(self) -> dict[str, str]:
        """For each model that was attacked, in words whether its adversarial figures can be trusted."""
        return trust_of(self.cells)

    @property
    def about_methods(self) -> bool:
        """Whether there are seeds enough to speak of methods and not only of these trained networks."""
        return self.seeds >= SEEDS_FOR_METHODS

    def to_text(self) -> str:
        """A plain table and the tests in words, at most 110 columns wide."""
        sentences = [sentence for _, sentence in difference_sentences(self)]
        lines = [
            f"Accuracy in % on {self.dataset}, in brackets the 95 % interval",
            "",
            *_table_lines(self.summary),
            *_wrap(images_sentence(self.summary)),
            "",
            f"Against {self.baseline}, on the same images:",
            *(line for sentence in sentences for line in _wrap(sentence, "- ")),
            "",
            *_wrap(scope_sentence(self)),
        ]
        if self.left_out:
            lines += _wrap(left_out_sentence(self))
        lines += _wrap(bounds_sentence(self.cells))
        lines += _wrap(meaning_sentence(self.cells))
        trust = list(trust_sentences(self))
        if trust:
            lines += ["", "Can the figures under attack be trusted?"]
            lines += [line for sentence in trust for line in _wrap(sentence, "- ")]
        return "\n".join(lines) + "\n"


WIDTH = 110

SIGNIFICANT = 0.05

NO_DIFFERENCE = "no significant difference"

JUDGEMENTS = ("better", "worse", NO_DIFFERENCE)

_WORST_CELLS = 3

_UNTRUSTED = (
    "Not every figure under attack has been found trustworthy: stronger attacks may undo these differences."
)


def trust_sentences(comparison: Comparison) -> Iterator[str]:
    """The verdicts on the adversarial figures, models of the same verdict together."""
    verdicts = comparison.verdicts
    for verdict in dict.fromkeys(verdicts.values()):
        yield f"{', '.join(model for model in verdicts if verdicts[model] == verdict)}: {verdict}."


def trust_line(comparison: Comparison) -> str:
    """In two sentences: do the figures speak of methods, and can those under attack be trusted?"""
    count = f"{comparison.seeds} training seed{'s' if comparison.seeds > 1 else ''} each"
    whom = "for the methods" if comparison.about_methods else "for these networks, not for the methods"
    verdicts = sorted({verdict.partition(":")[0] for verdict in comparison.verdicts.values()})
    attacked = (
        "no attack was run"
        if not verdicts
        else "as upper bounds only, for nothing was checked for gradient masking"
        if verdicts == [NOT_ASSESSED]
        else ", ".join(verdicts)
    )
    return f"Without attack: yes, {whom} ({count}). Under attack: {attacked}."


def figures_of(summary: pd.DataFrame) -> list[str]:
    """Names of the accuracies in a summary, in order: those that have bounds and image counts."""
    return [name for name in summary.columns if f"{name} images" in summary.columns]


def headline_figures(summary: pd.DataFrame) -> list[str]:
    """The accuracies that a first look needs: without the means of single categories.

    The mean over the extra corruptions is one where they stand alone, as on held-out images.
    """
    figures = figures_of(summary)
    first = ("clean", "corruption mean") if "corruption mean" in figures else ("clean", "extra mean")
    return [name for name in figures if name in first or name.startswith(("worst ", PROVEN))]


def interval_text(row: Mapping[Any, Any], figure: str) -> str:
    """An accuracy in % with its interval, e.g. ``"73.2 [70.1, 76.0]"``."""
    mean, low, high = (100 * float(row[name]) for name in (figure, f"{figure} low", f"{figure} high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def images_sentence(summary: pd.DataFrame) -> str:
    """On how many images each figure rests."""
    counts = [f"{figure} {int(summary[f'{figure} images'].iloc[0])}" for figure in headline_figures(summary)]
    return f"Images behind each figure: {', '.join(counts)}."


def difference_text(row: Mapping[Any, Any]) -> str:
    """One test in words, e.g. ``"corruption mean +2.1 points [+0.9, +3.3], better (p = 0.002)"``."""
    difference, low, high = (100 * float(row[name]) for name in ("difference", "low", "high"))
    return (
        f"{row['label']} {difference:+.1f} points [{low:+.1f}, {high:+.1f}], "
        f"{judgement(row)} ({pvalue_text(float(row['p_holm']))})"
    )


def judgement(row: Mapping[Any, Any]) -> str:
    """One of `JUDGEMENTS`, by the Holm-adjusted p-value."""
    if float(row["p_holm"]) >= SIGNIFICANT:
        return NO_DIFFERENCE
    return "better" if float(row["difference"]) > 0 else "worse"


def pvalue_text(value: float) -> str:
    """A p-value as it is printed: three decimals, or ``"p < 0.001"``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def headline_tests(comparison: Comparison, model: str) -> pd.DataFrame:
    """The tests behind the headline figures of a model: over seeds where there are enough, else over images."""
    tests = comparison.tests[comparison.tests["model"] == model]
    level = "seeds" if comparison.about_methods else "headline"
    wanted = headline_figures(comparison.summary)
    return tests[(tests["level"] == level) & tests["label"].isin(wanted)]


def difference_sentences(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """For each model but the baseline its name and its differences in one sentence or two."""
    for model in comparison.summary["model"]:
        if model == comparison.baseline:
            continue
        rows = headline_tests(comparison, model).to_dict("records")
        sentence = f"{model}: {'; '.join(difference_text(row) for row in rows)}."
        yield model, sentence + _cells_text(comparison, model)


def _cells_text(comparison: Comparison, model: str) -> str:
    """Return the number of cells that differ significantly, and those that lost most."""
    tests = comparison.tests
    cells = tests[(tests["model"] == model) & (tests["level"] == "cell")]
    better = int(((cells["p_holm"] < SIGNIFICANT) & (cells["difference"] > 0)).sum())
    worse = int(((cells["p_holm"] < SIGNIFICANT) & (cells["difference"] < 0)).sum())
    text = f" Of {len(cells)} cells {better} significantly better, {worse} worse"
    lost = cells[cells["difference"] < 0].nsmallest(_WORST_CELLS, "difference")
    if lost.empty:
        return f"{text}."
    names = [f"{row['label']} {100 * row['difference']:+.1f}" for row in lost.to_dict("records")]
    return f"{text}; largest losses: {', '.join(names)}."


def headline(comparison: Comparison) -> list[str]:
    """Return one sentence for each headline figure, significance included."""
    baseline = comparison.baseline
    summary = comparison.summary.set_index("model")
    tests = pd.concat([headline_tests(comparison, str(model)) for model in summary.index])
    sentences = []
    for figure in headline_figures(comparison.summary):
        percent = 100 * float(str(summary.at[baseline, figure]))
        text = f"{_figure_words(figure)} {baseline!r} classifies {percent:.1f} % correctly"
        rows = tests[tests["label"] == figure].sort_values("difference", ascending=False).to_dict("records")
        parts = [_group_words(rows, word) for word in JUDGEMENTS]
        sentences.append("; ".join([text, *(part for part in parts if part)]) + ".")
    return sentences


def _group_words(rows: list[dict[Any, Any]], word: str) -> str:
    """The models of one judgement, with their differences where these are significant."""
    group = [row for row in rows if judgement(row) == word]
    if not group:
        return ""
    if word == NO_DIFFERENCE:
        return f"{word}: {', '.join(repr(row['model']) for row in group)}"
    return f"significantly {word}: " + ", ".join(
        f"{row['model']!r} {100 * row['difference']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        for row in group
    )


def lead(comparison: Comparison) -> str:
    """The result in a sentence or two, never better than the tests."""
    baseline = comparison.baseline
    if len(comparison.summary) == 1:
        return f"Only {baseline!r} was measured: there is nothing to compare it with."
    better, worse = (_significant(comparison, word) for word in ("better", "worse"))
    if not better and not worse:
        return f"No model differs significantly from {baseline!r} in any headline figure."
    first = (
        f"Significantly better than {baseline!r}: {better}."
        if better
        else f"No model is significantly better than {baseline!r}."
    )
    sentences = [first, f"Significantly worse: {worse}." if worse else "", _attack_caveat(comparison)]
    return " ".join(filter(None, sentences))


def _attack_caveat(comparison: Comparison) -> str:
    """Warns of significant differences under attack where not every model's figure has a suite's verdict "trusted"."""
    models = list(comparison.summary["model"])
    tests = pd.concat([headline_tests(comparison, model) for model in models])
    labels = tests[tests["p_holm"] < SIGNIFICANT]["label"]
    suites = suite_rows(comparison.cells)
    for threat in (label.removeprefix("worst ") for label in labels if label.startswith("worst ")):
        judged = suites[suites["threat"] == threat]
        if set(judged["model"]) != set(models) or set(judged["verdict"]) != {"trusted"}:
            return _UNTRUSTED
    return ""


def _significant(comparison: Comparison, word: str) -> str:
    """Which models have this judgement, and where."""
    found = []
    for model in comparison.summary["model"]:
        rows = [row for row in headline_tests(comparison, model).to_dict("records") if judgement(row) == word]
        if rows:
            found.append(f"{model!r} {' and '.join(_figure_words(row['label']).lower() for row in rows)}")
    return "; ".join(found)


def _figure_words(figure: str) -> str:
    if figure == "clean":
        return "On clean images"
    if figure in ("corruption mean", "extra mean"):
        return "Under corruption"
    if figure.startswith(PROVEN):
        return f"Smoothed and {figure}"
    return f"Under the strongest attack run at {figure.removeprefix('worst ')}"


def scope_sentence(comparison: Comparison) -> str:
    """Whether the figures speak of methods or only of these trained networks."""
    if comparison.about_methods:
        return (
            f"Each method was trained with at least {comparison.seeds} seeds: intervals and tests of these "
            "figures are Student's t over the seeds (Welch's, not paired). Counts of single cells rest on permutation "
            "tests by image and speak of these networks alone. p-values are Holm-adjusted."
        )
    return (
        f"With {comparison.seeds} training seed{'s' if comparison.seeds > 1 else ''} per model this compares "
        "these trained networks, not the methods: claims about methods need at least 3 seeds each. "
        "p-values are Holm-adjusted: exact McNemar within a cell, permutation by image over several."
    )


def left_out_sentence(comparison: Comparison) -> str:
    """Which cells did not take part."""
    count = len(comparison.left_out)
    shown = ", ".join(comparison.left_out[:5]) + (" ..." if count > 5 else "")
    return (
        f"{count} cells were left out because not every model was measured there on the same images: {shown}."
    )


def _table_lines(summary: pd.DataFrame) -> list[str]:
    """Model names down, figures across, in as many blocks as the width demands."""
    names = ["model", *summary["model"]]
    columns = [
        [figure, *(interval_text(row, figure) for row in summary.to_dict("records"))]
        for figure in headline_figures(summary)
    ]
    first = min(max(map(len, names)), 30)
    lines: list[str] = []
    block: list[list[str]] = []
    for column in [*columns, None]:
        used = first + sum(2 + max(map(len, entry)) for entry in block)
        if column is None or (block and used + 2 + max(map(len, column)) > WIDTH):
            lines += [*_block_lines(names, first, block), ""]
            block = []
        if column is not None:
            block.append(column)
    return lines


def _block_lines(names: list[str], first: int, block: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in block]
    lines = []
    for row, name in enumerate(names):
        cells = [column[row].rjust(width) for column, width in zip(block, widths, strict=True)]
        lines.append("  ".join([_shorten(name, first).ljust(first), *cells]).rstrip())
    return [lines[0], "-" * len(max(lines, key=len)), *lines[1:]]


def _shorten(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."


def _wrap(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet))
