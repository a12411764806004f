from __future__ import annotations

import pytest

from gsprune.counted import counted


@pytest.mark.parametrize(("count", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1000, "1000 runs")])
def test_a_noun_follows_its_number(count: int, text: str) -> None:
    assert counted(count, "run") == text
