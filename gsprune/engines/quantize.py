"""Static quantisation of an ONNX file to 8-bit integers with ONNX Runtime's tools."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gsprune.arrays import AnyArray
from gsprune.engines.suppress_warnings import suppress_warnings
from gsprune.errors import ExportError, needs

__all__ = ["quantize"]


def quantize(
    path: str | os.PathLike[str],
    quantized: str | os.PathLike[str],
    calibration: Sequence[Mapping[str, AnyArray]],
) -> Path:
    """Write a copy of an ONNX file that computes convolutions and dense layers in 8-bit integers.

    Weights are scaled per output channel and activations by their range over the calibration inputs, both signed
    ("S8S8", which ONNX Runtime recommends for CPUs with and without VNNI:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        path: the float file; not changed.
        quantized: the file to write; an existing file is kept on failure.
        calibration: typical inputs by name; at least one.

    Returns:
        `quantized`.

    Raises:
        ValueError: there are no calibration inputs.
        ExportError: ONNX Runtime cannot quantise the file.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    if not calibration:
        raise ValueError("`calibration` must hold at least one input, got none")
    with needs("onnxruntime", "export"):
        from onnxruntime import quantization
    target = Path(quantized)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """An iterator over the calibration inputs with ONNX Runtime's interface."""

        def __init__(self) -> None:
            self._inputs = iter(calibration)

        def get_next(self) -> dict[str, AnyArray] | None:
            following = next(self._inputs, None)
            return None if following is None else dict(following)

    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / target.name
        try:
            with suppress_warnings():
                quantization.shape_inference.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
                quantization.quantize_static(
                    str(prepared),
                    str(written),
                    Reader(),
                    quant_format=quantization.QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=quantization.QuantType.QInt8,
                    weight_type=quantization.QuantType.QInt8,
                )
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"{str(path)!r} cannot be quantised: {type(error).__name__}: {error}") from error
        written.replace(target)
    return target
