"""The notebook in the docs: it runs as it stands, and what it shows is what it says."""

import json
import re
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[1] / "docs/tour.ipynb"


def printed(cells) -> str:
    """All text that the cells printed."""
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    return "\n".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def scores(cells) -> dict[str, float]:
    """PSNR in dB by system."""
    return {name: float(value) for name, value in re.findall(r"(\w+): (\d+\.\d+) dB", printed(cells))}


def test_the_docs_hold_it_executed():
    cells = json.loads(TOUR.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert "error" not in {output["output_type"] for cell in code for output in cell["outputs"]}
    assert not re.search(r"/tmp|/home|/root|/work", json.dumps([cell["outputs"] for cell in code]))
    found = scores(cells)
    assert found["adapted"] > found["blur2blur"] > found["deblurrer"]


@pytest.mark.slow
def test_it_runs_from_a_folder_of_ones_own(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    told = scores(notebook.cells)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert scores(notebook.cells) == pytest.approx(told, abs=0.02)
    assert "unknown_sharp has only" in printed(notebook.cells)
    assert (tmp_path / "tour/run/camera/kernels.png").is_file()
