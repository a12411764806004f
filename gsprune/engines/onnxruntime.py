"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gsprune.arrays import AnyArray
from gsprune.engines.engine import Engine
from gsprune.engines.portable_call import PortableCall
from gsprune.engines.timing import Forward
from gsprune.errors import needs

__all__ = ["OnnxFunction", "OnnxRuntime", "load_onnx"]

Arrays = Mapping[str, AnyArray]
OnnxFunction = Callable[[Arrays], list[AnyArray]]
"""Inputs by name -> outputs in their order."""

_SPINNING_STOP = "session.force_spinning_stop"


class OnnxRuntime(Engine):
    """ONNX Runtime on the CPU."""

    package = "onnxruntime"
    settings: Mapping[str, Any] = {
        "inter_op_num_threads": 1,
        # Threads that keep spinning after a call would slow down the next timed network.
        _SPINNING_STOP: "1",
        "dynamic_batch": False,
    }

    def load(self, call: PortableCall, threads: int) -> Forward:
        """See `Engine.load`."""
        network = load_onnx(self.onnx(call), threads)
        inputs = call.arrays
        return lambda: network(inputs)

    def onnx(self, call: PortableCall) -> bytes:
        """The contents of the network's ONNX file."""
        return call.onnx


def load_onnx(model: Path | bytes, threads: int = 1) -> OnnxFunction:
    """Load a network into ONNX Runtime.

    Args:
        model: an ONNX file, or its contents.
        threads: threads per operator, >= 1.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        Exception: ONNX Runtime cannot run the network.
    """
    with needs("onnxruntime", "export"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = OnnxRuntime.settings["inter_op_num_threads"]
    options.log_severity_level = 3  # errors
    options.add_session_config_entry(_SPINNING_STOP, OnnxRuntime.settings[_SPINNING_STOP])
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return lambda inputs: [np.asarray(output) for output in session.run(None, dict(inputs))]
