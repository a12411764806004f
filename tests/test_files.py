"""Files are whole, and one process at a time has a lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gsprune.files import lock_file, replacement, write_atomically


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def fail(self: Path, target: Path) -> None:
        raise OSError

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError):  # noqa: PT011
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_block_that_raises_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(ValueError, match="halfway"), replacement(file) as partial:  # noqa: PT012
        partial.write_bytes(b"ne")
        raise ValueError("halfway")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"old"


def test_a_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with lock_file(file, str), pytest.raises(ValueError, match=f"in use by {os.getpid()}"):
        lock_file(file, lambda owner: f"in use by {owner}")
    lock_file(file, str).close()
