"""The code of docs/export.md runs, top to bottom, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from gsprune.engines import WIDTH_MULTIPLES

PAGE = Path(__file__).parent.parent / "docs" / "export.md"


def test_every_code_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {"__name__": "page"})
    assert (tmp_path / "net.pt2.json").exists()


def test_the_table_of_presets_is_the_codes() -> None:
    rows = re.findall(r'^\| `"([a-z0-9-]+)"` \| (\d+) \|', PAGE.read_text(), flags=re.MULTILINE)
    assert {name: int(multiple) for name, multiple in rows} == dict(WIDTH_MULTIPLES)
