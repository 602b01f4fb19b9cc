"""Write the comparison as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..configs.atomic import file_written_whole
from .compare import Comparison, compare
from .palette import model_styles
from .pictures import Example, atom_mosaic, picture_address
from .report_panels import attack_section, corruption_section, curve_panels
from .report_tables import cell_table, measurement_facts, summary_section, test_table, worst_table
from .store import ResultsStore
from .wording import SIGNIFICANT, headline, images_sentence, lead, left_out_sentence, scope_sentence

TEMPLATES = Path(__file__).parent / "templates"
_SECTIONS = {
    "verdicts": "Trust",
    "comparison": "Comparison",
    "corruptions": "Corruptions",
    "worst": "Worst cells",
    "attacks": "Attacks",
    "examples": "Examples",
    "atoms": "Atoms",
    "training": "Training",
    "measured": "How measured",
}


def write_report(
    path: str | Path,
    results: ResultsStore | pd.DataFrame | str | Path,
    *,
    baseline: str,
    dataset: str | None = None,
    title: str = "Robustness report",
    facts: Mapping[str, str] | None = None,
    atoms: Mapping[str, NDArray[np.floating]] | None = None,
    examples: Sequence[Example] = (),
    curves: Mapping[str, pd.DataFrame] | None = None,
) -> Comparison:
    """Compare the models and write ``report.html``: one file, no network, light and dark, printable.

    Args:
        path: The HTML file to write; it replaces an old one atomically.
        results: As in `compare`.
        baseline: Model that the others are compared with.
        dataset: Which data set, where the results hold several.
        title: Heading of the page.
        facts: What the reader should know of the run, name to text, shown under "How this was measured".
        atoms: Dictionary of each model that has one, (M, C, k, k).
        examples: Rows of pictures.
        curves: Training curves of each model; columns ``epoch`` and any of ``train_loss``, ``val_loss``,
            ``train_accuracy``, ``val_accuracy``, ``active_fraction`` (0 to 1), ``images_per_second``.

    Returns:
        The comparison that the page shows.

    Raises:
        InputError: The results cannot be compared, a picture or table has another form, or the file cannot be
            written.
    """
    comparison = compare(results, baseline=baseline, dataset=dataset)
    page = _page(comparison, title, facts or {}, atoms or {}, examples, curves or {})
    with file_written_whole(Path(path)) as target:
        target.write_text(page, encoding="utf-8")
    return comparison


def _page(
    comparison: Comparison,
    title: str,
    facts: Mapping[str, str],
    atoms: Mapping[str, NDArray[np.floating]],
    examples: Sequence[Example],
    curves: Mapping[str, pd.DataFrame],
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    models = [
        *comparison.summary["model"],
        *(model for model in curves if model not in set(comparison.summary["model"])),
    ]
    styles = model_styles(models)
    sections: dict[str, Any] = {
        "verdicts": comparison.verdicts,
        "comparison": True,
        "corruptions": corruption_section(comparison, styles),
        "worst": worst_table(comparison),
        "attacks": attack_section(comparison, styles),
        "examples": [_example(example) for example in examples],
        "atoms": [_mosaic(model, values) for model, values in atoms.items()],
        "training": curve_panels(curves, styles),
        "measured": True,
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        **sections,
        curves=sections["training"],
        title=title,
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        dataset=comparison.dataset,
        baseline=comparison.baseline,
        models=list(comparison.summary["model"]),
        styles=styles,
        lead=lead(comparison),
        headline=headline(comparison),
        scope=scope_sentence(comparison),
        left_out=left_out_sentence(comparison) if comparison.left_out else "",
        contents=[(anchor, name) for anchor, name in _SECTIONS.items() if sections[anchor]],
        significant=SIGNIFICANT,
        summary=summary_section(comparison),
        images=images_sentence(comparison.summary),
        facts={**facts, **measurement_facts(comparison)},
        cells=cell_table(comparison),
        tests=test_table(comparison),
    )


def _example(example: Example) -> dict[str, Any]:
    pictures = [
        {"caption": caption, "address": picture_address(picture, f"picture {caption!r} of {example.title!r}")}
        for caption, picture in example.pictures
    ]
    return {"title": example.title, "pictures": pictures}


def _mosaic(model: str, values: NDArray[np.floating]) -> dict[str, str]:
    address = atom_mosaic(values)
    count, channels, height, width = np.shape(values)
    what = f"{count} atoms of {height} x {width} pixels{', grey' if channels == 1 else ''}"
    return {"address": address, "caption": f"{model}: {what}", "alt": f"The {what} of {model}"}
