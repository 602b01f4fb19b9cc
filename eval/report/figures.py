"""Line figures of the report as inline SVG, drawn with matplotlib's object interface.

Each panel is a picture of its own, so that the page can lay them out for any width. Text and axes take
the colour of the page's text, which serves light and dark paper alike. A model has one colour, which colour-blind
readers can distinguish, in every panel.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe & Ito's palette without yellow and black, which vanish on white and on dark paper.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

ARMS = ("none", "conv", "lca", "warp-lca")

_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"))

_DASHES = ("-", "--", ":")


class ModelStyle(NamedTuple):
    """Style of one model: colour, matplotlib's marker and dashes, and the marker as a character."""

    colour: str
    marker: str
    dashes: str
    glyph: str


def model_styles(models: Iterable[str]) -> dict[str, ModelStyle]:
    """Give each model a style; no two among the first thirty share colour and marker.

    The arms of comparisons have the same ones in every figure and report, whichever of them and what else is there.
    """
    models = list(dict.fromkeys(models))
    places = {model: ARMS.index(model) for model in models if model in ARMS}
    free = (number for number in itertools.count() if number not in places.values())
    styles = {}
    for model in models:
        number = places[model] if model in places else next(free)
        marker, glyph = _MARKERS[number % len(_MARKERS)]
        dashes = _DASHES[(number // len(_COLOURS)) % len(_DASHES)]
        styles[model] = ModelStyle(_COLOURS[number % len(_COLOURS)], marker, dashes, glyph)
    return styles


PANEL_INCHES = (3.1, 2.2)

_INK = "#123456"  # replaced by currentColor

_DODGE = 0.012

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        model: Name of the model, which fixes the style of its line.
        x: (n,) positions.
        y: (n,) values.
        low: (n,) lower ends of the intervals; empty without intervals.
        high: (n,) upper ends; empty without intervals.
        faint: Draw it thin and dashed, as the lesser of two lines of one model.
        top: (n,) upper edge of a band that is filled from the values on; empty without a band.
    """

    model: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    faint: bool = False
    top: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """A drawn figure with its caption and its description for those who cannot see it."""

    caption: str
    alt: str
    svg: str


def line_panel(
    lines: Sequence[Line],
    styles: Mapping[str, ModelStyle],
    *,
    name: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    x_tick_labels: Sequence[str] | None = None,
    y_limits: tuple[float, float | None] | None = None,
) -> str:
    """One panel of lines with their intervals.

    Args:
        lines: The lines to draw.
        styles: Style of each model.
        name: Unique name within the page: it prefixes every id.
        x_label: Label below.
        y_label: Label at the side.
        x_ticks: Positions of ticks; None leaves them to matplotlib.
        x_tick_labels: Texts of the ticks.
        y_limits: Range shared by several panels, or (lower end, None).

    Returns:
        An ``<svg>`` element.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=PANEL_INCHES, layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, lines, styles)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if x_ticks is not None:
            axes.set_xticks(x_ticks, x_tick_labels)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if y_limits is not None:
            axes.set_ylim(*y_limits)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="y", alpha=0.18, color=_INK, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure, name)


def _draw(axes: Axes, lines: Sequence[Line], styles: Mapping[str, ModelStyle]) -> None:
    everything = np.concatenate([np.asarray(line.x, dtype=float) for line in lines])
    width = float(np.ptp(everything)) or 1.0
    for number, line in enumerate(lines):
        style = styles[line.model]
        # Intervals of models side by side, not on top of each other.
        shift = (number - (len(lines) - 1) / 2) * _DODGE * width if line.low else 0.0
        x = np.asarray(line.x, dtype=float) + shift
        axes.plot(
            x,
            line.y,
            color=style.colour,
            linestyle="--" if line.faint else style.dashes,
            linewidth=1.0 if line.faint else None,
            marker=None if line.faint or len(x) > 12 else style.marker,
        )
        if line.top:
            axes.fill_between(x, line.y, line.top, color=style.colour, alpha=0.18, linewidth=0)
        if line.low:
            axes.vlines(x, line.low, line.high, color=style.colour, alpha=0.45, linewidth=1.1)


def _svg(figure: Figure, name: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids must be unique on the page, whatever figures share it.
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    return text.strip()
