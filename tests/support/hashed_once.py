"""A key with which an exchange fails at its very end."""

from __future__ import annotations


class HashedOnce:
    """A key that a dictionary can look up, but not set."""

    def __init__(self) -> None:
        self.is_first = True

    def __hash__(self) -> int:
        if not self.is_first:
            raise RuntimeError("no second time")
        self.is_first = False
        return 1
