"""Colours that colour-blind readers can tell apart, the same for the same model everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# Okabe & Ito's palette without yellow and black, which vanish on white and on dark paper.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"))
_DASHES = ("-", "--", ":")


class ModelStyle(NamedTuple):
    """How one model is drawn: colour, matplotlib's marker and dashes, and the marker as a character."""

    colour: str
    marker: str
    dashes: str
    glyph: str


def model_styles(models: Iterable[str]) -> dict[str, ModelStyle]:
    """Give each model a style; no two among the first thirty share colour and marker."""
    styles = {}
    for number, model in enumerate(models):
        marker, glyph = _MARKERS[number % len(_MARKERS)]
        dashes = _DASHES[(number // len(_COLOURS)) % len(_DASHES)]
        styles[model] = ModelStyle(_COLOURS[number % len(_COLOURS)], marker, dashes, glyph)
    return styles
