"""The notebooks run from top to bottom, and show what they gave."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["robust_classifier", "sparse_codes"]


@pytest.mark.parametrize(
    "path", [pytest.param(NOTEBOOKS[0], marks=pytest.mark.slow), NOTEBOOKS[1]], ids=lambda path: path.stem
)
def test_a_notebook_runs_and_holds_its_outputs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    stored = [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]
    assert any(stored)
    assert not any(output.get("name") == "stderr" for outputs in stored for output in outputs)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "active" in printed
