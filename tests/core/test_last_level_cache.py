"""The size of the last-level cache, from which on slices are written past it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gsprune import _core

LISTED = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))


@pytest.mark.skipif(not LISTED, reason="the system lists no caches")
def test_the_largest_listed_cache_is_found() -> None:
    units = {"K": 2**10, "M": 2**20}
    sizes = [path.read_text().strip() for path in LISTED]
    assert _core.machine.last_level_cache_bytes() == max(int(size[:-1]) * units[size[-1]] for size in sizes)


@pytest.mark.skipif(bool(LISTED), reason="the system lists its caches")
def test_without_a_list_the_c_library_is_asked() -> None:
    asked = os.sysconf("SC_LEVEL3_CACHE_SIZE") if "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names else 0
    assert _core.machine.last_level_cache_bytes() == max(asked, 0)
