"""What the documentation shows runs: every snippet of Python alone in an empty folder, every command parses."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

import pytest

from warplca.cli.parser import parse
from warplca.configs.extensions import FRONTENDS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "results"),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MINUTES = ("README.md 0", "docs/how-to/export.md 0")
"""Snippets that take longest."""


def blocks(*languages: str) -> dict[str, str]:
    """Text of every fenced block of these languages by page and number."""
    found: dict[str, str] = {}
    for page in PAGES:
        texts = [body for _, language, body in FENCE.findall(page.read_text()) if language in languages]
        found |= {f"{page.relative_to(ROOT)} {number}": text for number, text in enumerate(texts)}
    return found


PYTHON = blocks("python")
SHELL = {name: text for name, text in blocks("bash", "").items() if "warplca " in text}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in MINUTES else name for name in PYTHON]
)
def test_a_snippet_runs_alone_in_an_empty_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FRONTENDS, "_classes", FRONTENDS.items())  # what it registers goes with it
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(PYTHON[name], name, "exec", dont_inherit=True), {"__name__": "__main__"})
    assert printed.getvalue() or "print(" not in PYTHON[name]


def commands(text: str) -> list[list[str]]:
    """The `warplca` command lines of a block."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    words = [shlex.split(part, comments=True) for part in parts]
    return [line[1:] for line in words if line and os.path.basename(line[0]) == "warplca"]


@pytest.mark.parametrize("name", SHELL)
def test_commands_of_the_documentation_are_understood(name: str) -> None:
    for line in commands(SHELL[name]):
        if "..." not in line:
            assert parse(line).command == line[0]


def test_the_readme_is_short() -> None:
    text = PAGES[0].read_text()
    assert len(text.split()) <= 500
    assert max(map(len, text.splitlines())) <= 110
    linked = {path for path in re.findall(r"\]\(([^)#]+)", text) if "://" not in path}
    assert all((ROOT / path).exists() for path in linked)
    pages = {str(page.relative_to(ROOT)) for page in PAGES if page.parent.name in ("docs", "how-to")}
    assert pages - linked <= {"docs/index.md", "docs/how-to/processes.md"}
