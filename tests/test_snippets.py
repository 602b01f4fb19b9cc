"""What the documentation shows works: every block of every page is run, understood as a command, or output of one.

Python runs alone in an empty folder. Commands are understood, not run, since they need minutes, data of the reader's or
a network; those of the tutorial do run, one after the other, where slow tests run, and `.ci/run` runs the quick start.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from warplca.cli.parser import parse
from warplca.configs import RunConfig, load_config
from warplca.configs.extensions import FRONTENDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL, OUTPUT = ("bash", ""), "text"
TUTORIAL = "docs/tutorial.md"
MINUTES = ("README.md 0", "docs/how-to/export.md 0")
"""Snippets that take longest."""
PROGRAMS = ("accelerate", "echo", "export", "git", "pip", "pytest", "tensorboard")
"""Programs of others whose command lines are not looked into."""


def blocks(*languages: str) -> dict[str, str]:
    """Text of every fenced block of these languages by page and number."""
    found: dict[str, str] = {}
    for page in PAGES:
        texts = [body for _, language, body in FENCE.findall(page.read_text()) if language in languages]
        found |= {f"{page.relative_to(ROOT)} {number}": text for number, text in enumerate(texts)}
    return found


PYTHON = blocks("python")


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    for page in PAGES:
        text = page.read_text()
        found = FENCE.findall(text)
        assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), page
        assert {language for _, language, _ in found} <= {"python", *SHELL, "yaml", OUTPUT}, page


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in MINUTES else name for name in PYTHON]
)
def test_a_snippet_runs_alone_in_an_empty_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.startswith("docs/results/"):
        (tmp_path / "docs").symlink_to(ROOT / "docs")  # it reads the stores beside its page
    monkeypatch.setattr(FRONTENDS, "_classes", FRONTENDS.items())  # what it registers goes with it
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(PYTHON[name], name, "exec", dont_inherit=True), {"__name__": "__main__"})
    assert printed.getvalue() or "print(" not in PYTHON[name]


def commands(text: str) -> list[list[str]]:
    """The command lines of a block, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [part for part in parts if part]


def check(line: list[str]) -> None:
    """Fail unless a command is ours and its options are known, or a file of this project, or somebody else's."""
    program, *rest = line
    program = os.path.basename(program)
    if "..." in line:
        return
    module = next(
        (n for n, word in enumerate(line) if word == "-m" and line[n + 1].startswith("warplca")), None
    )
    if module is not None:
        program, rest = "warplca", line[module + 2 :]
    if program == "warplca":
        assert parse(rest).command == rest[0], line
    elif program == "python" and rest[0] != "-m":
        (script,) = [place for place in (ROOT / rest[0], ROOT / "examples" / rest[0]) if place.is_file()]
        source = "".join(file.read_text() for file in script.parent.glob("*.py"))
        own = "timm_script.py" not in rest[0]  # which passes its options to another script
        assert not own or all(f'"{word}"' in source for word in rest if word.startswith("--")), line
    else:
        assert program in (*PROGRAMS, "python"), line


@pytest.mark.parametrize("name", blocks(*SHELL))
def test_commands_of_the_documentation_are_understood(name: str) -> None:
    for line in commands(blocks(*SHELL)[name]):
        check(line)


@pytest.mark.parametrize("name", blocks("yaml"))
def test_configurations_of_the_documentation_are_valid(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(blocks("yaml")[name])
    assert load_config(RunConfig, file, "train") != load_config(RunConfig, "none", "train")
    assert yaml.safe_load(file.read_text())


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "TQDM_DISABLE": "1"}
    for _, language, body in FENCE.findall((ROOT / TUTORIAL).read_text()):
        command = [sys.executable, "-c", body] if language == "python" else ["bash", "-euc", body]
        if language != OUTPUT:
            ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert ended.returncode == (2 if "notes.txt" in body else 0), f"{body}\n{ended.stderr}"
    assert (tmp_path / "pets.onnx").is_file()


def test_the_readme_is_short() -> None:
    text = PAGES[0].read_text()
    assert len(text.split()) <= 500
    assert max(map(len, text.splitlines())) <= 110
    linked = {path for path in re.findall(r"\]\(([^)#]+)", text) if "://" not in path}
    assert all((ROOT / path).exists() for path in linked)
    pages = {str(page.relative_to(ROOT)) for page in PAGES if page.parent.name in ("docs", "how-to")}
    assert pages - linked == {"docs/index.md"}
