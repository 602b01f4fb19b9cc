"""A part of the fuzz in every run of the tests; all of it by `python tests/fuzz.py`."""

from pathlib import Path

import pytest
from fuzz import run


@pytest.mark.parametrize(
    "count", [40, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_no_input_ends_in_a_bug_a_hang_or_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    tried, wrong = run(count, 0, tmp_path)
    assert sum(tried.values()) == count
    assert len(tried) >= 8
    assert not wrong, "\n".join(wrong)
