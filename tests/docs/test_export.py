"""The table of width presets on docs/guide/export.md is the code's."""

from __future__ import annotations

import re
from pathlib import Path

from gsprune.engines import WIDTH_MULTIPLES

PAGE = Path(__file__).parent.parent.parent / "docs" / "guide" / "export.md"


def test_the_table_of_presets_is_the_codes() -> None:
    rows = re.findall(r'^\| `"([a-z0-9-]+)"` \| (\d+) \|', PAGE.read_text(), flags=re.MULTILINE)
    assert {name: int(multiple) for name, multiple in rows} == dict(WIDTH_MULTIPLES)
