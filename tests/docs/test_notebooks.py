"""The notebooks that the site offers run from top to bottom."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def notebooks() -> Any:
    pytest.importorskip("jupytext", reason="jupytext is not installed: pip install -c constraints.txt '.[docs]'")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # of jupyter_client and pyzmq
def test_the_first_tutorial_runs_as_a_notebook(notebooks: Any, tmp_path: Path) -> None:
    nbclient = pytest.importorskip(
        "nbclient", reason="nbclient is not installed: pip install -c constraints.txt '.[docs]'"
    )
    notebook = notebooks.notebook_of(ROOT / "docs" / "tutorials" / "shrink-a-cnn.md")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    printed = "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text" in output
    )
    assert "step 200" in printed
    assert "accuracy" in printed
