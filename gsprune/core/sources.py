"""Fingerprint of the C++ sources: `setup.py` compiles it into the core, and an import compares it with ``csrc/``."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["fingerprint"]

_SUFFIXES = frozenset({".cpp", ".hpp", ".inc"})


def fingerprint(folder: Path) -> str:
    """SHA-256 of the names and contents of all C++ files below `folder`.

    Args:
        folder: the source folder ``csrc/``.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
