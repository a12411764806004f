"""A context that hides the warnings that exporters and compilers raise about themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["suppress_warnings"]


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress warnings, and log messages up to that level, about which a user can do nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
