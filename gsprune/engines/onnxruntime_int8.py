"""ONNX Runtime with a network in 8-bit integers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsprune.engines.onnxruntime import OnnxRuntime
from gsprune.engines.portable_call import PortableCall
from gsprune.engines.quantize import quantize

__all__ = ["OnnxRuntimeInt8"]


class OnnxRuntimeInt8(OnnxRuntime):
    """Runs the statically quantised network. It is calibrated on the call's inputs only: ranges do not affect speed."""

    settings: Mapping[str, Any] = {**OnnxRuntime.settings, "quantized": "S8S8"}

    def onnx(self, call: PortableCall) -> bytes:
        """See `OnnxRuntime.onnx`."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            file.write_bytes(call.onnx)
            return quantize(file, file.with_suffix(".int8.onnx"), [call.arrays]).read_bytes()
