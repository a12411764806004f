"""Numbers with their noun."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """A number with its noun in the singular or plural: "1 run", "2 runs"; the plural takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
