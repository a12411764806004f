"""The Python code of every page runs, top to bottom, as a reader would type it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent.parent / "docs"
EXTRAS = {"tutorials/sb3-agent.md": "stable_baselines3"}


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if blocks(page))


def test_pages_with_code_are_found() -> None:
    assert {"index.md", "guide/choosing.md", "guide/export.md", "tutorials/shrink-a-cnn.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_code_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in EXTRAS:
        pytest.importorskip(
            EXTRAS[page], reason=f"{EXTRAS[page]} is not installed: pip install -c constraints.txt '.[test]'"
        )
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        if page in EXTRAS:
            warnings.simplefilter("ignore")  # other libraries' own
        exec(compile("\n".join(blocks(DOCS / page)), page, "exec"), {"__name__": "page"})
