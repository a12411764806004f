"""The exceptions and the warning of gsprune, and the place of an error in the user's code.

A bad argument raises a ``ValueError`` or a ``TypeError`` that names the argument, its value, the constraint and the way
out. All other errors are::

    GspruneError
    ├── TraceError        the network's groups could not be found
    ├── ScoreError        a score is not finite, or a criterion lacks its data
    ├── RewriteError      the smaller network could not be built or failed its check; nothing was changed
    ├── CheckpointError   a file is damaged, or of another architecture
    ├── EvaluationError   an episode does not end
    ├── EnvironmentFailedError  an environment raised an exception
    ├── ExportError       a network cannot be exported, or its export has other outputs; no file was written
    ├── DistributedError  the ranks of a process group do not agree, or one of them has failed or ended
    └── MissingExtraError an optional dependency is not installed (also an ImportError)
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

__all__ = [
    "CheckpointError",
    "DistributedError",
    "EnvironmentFailedError",
    "EvaluationError",
    "ExportError",
    "GspruneError",
    "MissingExtraError",
    "PruneWarning",
    "RewriteError",
    "ScoreError",
    "TraceError",
    "failure_text",
    "first_line",
    "install_command",
    "is_out_of_memory",
    "needs",
    "place_in_user_code",
    "user_frames",
]

_LIBRARIES = ("site-packages", "dist-packages")


class GspruneError(Exception):
    """Base of every error of this package that is not a bad argument."""


class TraceError(GspruneError):
    """The network could not be traced: no example fits, or its forward failed."""


class ScoreError(GspruneError):
    """The importance of a group cannot be computed; the message names the group."""


class RewriteError(GspruneError):
    """The smaller network could not be built or failed its check; nothing was changed."""


class CheckpointError(GspruneError):
    """A checkpoint is damaged, or belongs to another architecture."""


class EvaluationError(GspruneError):
    """An evaluation was aborted: an episode is longer than the limit, or never ends."""


class EnvironmentFailedError(GspruneError):
    """An environment raised an exception; the message names the place in its code."""


class ExportError(GspruneError):
    """A network could not be exported, or the exported network has other outputs; no file was written."""


class DistributedError(GspruneError):
    """The ranks of a process group do not agree, or one of them has failed or ended; the message names the rank."""


class MissingExtraError(GspruneError, ImportError):
    """An optional dependency is missing; the message says which extra installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package!r}, which is not installed; in a clone of gsprune run: {install_command(extra)}"
        )
        self.package = package
        self.extra = extra


@contextmanager
def needs(package: str, extra: str) -> Iterator[None]:
    """A block that imports an optional dependency.

    Raises:
        MissingExtraError: an import fails.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, extra) from error


def install_command(extra: str) -> str:
    """The command that installs an extra from the root of a clone; gsprune is not on PyPI."""
    return f"pip install -c constraints.txt '.[{extra}]'"


class PruneWarning(UserWarning):
    """The requested sparsity cannot be reached, or parts of the network may be pruned otherwise than intended."""


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory ran out, which is not the network's fault. Torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of the user's code below the last frame of gsprune, outermost first.

    Frames of Python's own and of installed libraries are left out.

    Returns:
        [] if the error was raised by gsprune, or by a library that gsprune called.
    """
    frames: list[traceback.FrameSummary] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").partition(".")[0] == "gsprune":
            frames.clear()
        elif _is_user_code(frame):
            code = frame.f_code
            frames.append(traceback.FrameSummary(code.co_filename, line, code.co_name))
    return frames


def place_in_user_code(error: BaseException) -> str:
    """The place in the user's code that raised an error, as " (file.py, line 3, in step)"; empty if there is none."""
    frames = user_frames(error)
    return f" ({frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""


def failure_text(error: BaseException) -> str:
    """The type, the message and the place of an error that the user's code raised."""
    return f"{type(error).__name__}: {error}{place_in_user_code(error)}"


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message, without colour codes."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _is_user_code(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    is_library = any(f"/{folder}/" in file.replace("\\", "/") for folder in _LIBRARIES)
    return not is_library and not file.startswith(("<frozen", sysconfig.get_paths()["stdlib"]))
