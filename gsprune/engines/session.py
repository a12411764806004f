"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsprune.errors import MissingExtraError

__all__ = ["SESSION_SETTINGS", "Session", "open_session"]

Arrays = Mapping[str, npt.NDArray[Any]]
Session = Callable[[Arrays], list[npt.NDArray[Any]]]
"""Inputs by name -> outputs in their order."""

_SPINNING_STOP = "session.force_spinning_stop"

SESSION_SETTINGS: Mapping[str, Any] = {
    "inter_op_num_threads": 1,
    # Threads that go on spinning after a call would slow down whatever is timed next.
    _SPINNING_STOP: "1",
}
"""What ONNX Runtime is told, beside the number of threads."""


def open_session(path: Path, threads: int = 1) -> Session:
    """Load an ONNX file into ONNX Runtime.

    Args:
        path: the file.
        threads: that share the work of one operator, >= 1.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        Exception: whatever ONNX Runtime raises for a file it cannot run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "export") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = SESSION_SETTINGS["inter_op_num_threads"]
    options.log_severity_level = 3  # errors
    options.add_session_config_entry(_SPINNING_STOP, SESSION_SETTINGS[_SPINNING_STOP])
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Arrays) -> list[npt.NDArray[Any]]:
        return [np.asarray(output) for output in session.run(None, dict(inputs))]

    return run
