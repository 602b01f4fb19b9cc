"""The API pages name what the packages export: all of it, and nothing else."""

import importlib
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "docs" / "api"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_names_what_its_package_exports(page):
    names = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)
    assert len(names) == len(set(names))
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    package = importlib.import_module(f"warplca.{page.stem}")
    missing = {name for name in package.__all__ if f"warplca.{page.stem}.{name}" not in names}
    assert not missing
