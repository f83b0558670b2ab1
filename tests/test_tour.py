"""The notebook: it runs, with few steps, and what is stored in it is what a reader should see."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "docs" / "tour.ipynb"


@pytest.fixture
def tour() -> nbformat.NotebookNode:
    return nbformat.read(TOUR, as_version=4)


def outputs(tour: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in tour.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(tour: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(tour))


def test_what_is_stored(tour: nbformat.NotebookNode) -> None:
    nbformat.validate(tour)
    assert TOUR.stat().st_size < 600_000
    assert {output.output_type for output in outputs(tour)} == {"display_data", "execute_result"}  # no errors, no streams
    assert pictures(tour) == 6
    texts = [str(text) for output in outputs(tour) for kind, text in output.data.items() if kind != "image/png"]
    assert [text for text in texts if re.search(r"(^|[^\w.])/\w|[A-Z]:\\\\", text)] == []  # absolute paths
    counts = [cell.execution_count for cell in tour.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_it_runs(tour: nbformat.NotebookNode, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pictures(tour)
    (parameters,) = (cell for cell in tour.cells if "parameters" in cell.metadata.get("tags", []))
    assert parameters.source.startswith("steps = None  #")
    parameters.source = "steps = 2"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    NotebookClient(tour, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    assert pictures(tour) == before
    assert all(output.output_type != "error" for output in outputs(tour))
