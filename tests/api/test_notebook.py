"""The page about Python, executed as a notebook."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.test_docs import ROOT, blocks


@pytest.mark.slow
def test_the_page_about_python_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    random = np.random.default_rng(0)
    Path("photos").mkdir()
    for number in range(3):
        pixels = random.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    cells = blocks((ROOT / "docs" / "python.md").read_text(encoding="utf-8"), "python")
    assert len(cells) == 9
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    results = []
    for cell in notebook.cells:
        for output in cell.outputs:
            if output.output_type == "execute_result":
                results.append(output.data)
    assert float(results[0]["text/plain"]) > 0.3
    predicted = eval(results[2]["text/plain"], {"__builtins__": {}})
    assert [Path(path).name for path, _, _ in predicted] == ["0.png", "1.png", "2.png"]
    assert "image/png" in results[3]
    assert "'run': 'outputs/second'" in results[6]["text/plain"]
    assert Path("first.png").is_file()
    assert "tensor(" in results[-1]["text/plain"]
