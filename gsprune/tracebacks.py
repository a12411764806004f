"""The part of a traceback that is code of the user: an environment, a network, a criterion, an algorithm."""

from __future__ import annotations

import sysconfig
import traceback
from types import FrameType

__all__ = ["own_frames", "place_in_own_code"]

_LIBRARIES = ("site-packages", "dist-packages")


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of the user's code below the last frame of gsprune, the call comes first.

    Frames of Python's own and of installed libraries are left out.

    Returns:
        [] if the error was raised by gsprune, or by a library that gsprune called.
    """
    frames: list[traceback.FrameSummary] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").partition(".")[0] == "gsprune":
            frames.clear()
        elif _is_own(frame):
            code = frame.f_code
            frames.append(traceback.FrameSummary(code.co_filename, line, code.co_name))
    return frames


def place_in_own_code(error: BaseException) -> str:
    """The place in the user's code that raised an error, as " (file.py, line 3, in step)"; empty if there is none."""
    frames = own_frames(error)
    return f" ({frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""


def _is_own(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    is_library = any(f"/{folder}/" in file.replace("\\", "/") for folder in _LIBRARIES)
    return not is_library and not file.startswith(("<frozen", sysconfig.get_paths()["stdlib"]))
