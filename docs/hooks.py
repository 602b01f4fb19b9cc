"""What the site's configuration cannot say: pages that exist in some versions only, and where the package is."""

from __future__ import annotations

import html as entities
import re
import sys
from pathlib import Path
from typing import Any

OPTIONAL = {
    "Results": (
        ("Overview", "results.md"),
        ("Performance of the solver", "performance.md"),
        ("Studies", "results/studies.md"),
        ("The study at the field's scale", "results/study.md"),
        ("The small study", "results/small-study.md"),
        ("The study's tables", "results/study-small.md"),
        ("Pilots", "results/pilots.md"),
        ("Front-ends before published classifiers", "results/plugin.md"),
        ("The same on photographs", "results/plugin-photographs.md"),
        ("Networks in disguise", "results/verdict.md"),
    ),
}


def on_startup(**rest: Any) -> None:
    """Keep the `warplca` command, which lies beside `mkdocs`, from being taken for the package."""
    sys.path[:] = [folder for folder in sys.path if not (Path(folder) / "warplca").is_file()]


def on_config(config: Any) -> Any:
    """Extend the sections by those of their pages that exist."""
    folder = Path(config.docs_dir)
    for entry in config.nav:
        for section, pages in OPTIONAL.items():
            if section in entry:
                own = entry[section] if isinstance(entry[section], list) else []
                listed = {path for page in own for path in page.values()}
                entry[section] = own + [
                    {title: path} for title, path in pages if (folder / path).is_file() and path not in listed
                ]
    return config


FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)


def on_page_content(html: str, **rest: Any) -> str:
    """Write formulas as MathML, which browsers draw without a script or the network."""
    from latex2mathml.converter import convert

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found[2] == "[" else "inline"
        return convert(entities.unescape(found[3]).strip(), display=display)

    return FORMULA.sub(drawn, html)
