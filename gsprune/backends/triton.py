"""The backend of Triton kernels, for CUDA tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor

from gsprune import _core
from gsprune.arrays import BoolArray, Float32Array, Float64Array, IntArray
from gsprune.backends.protocol import Pattern
from gsprune.errors import MissingExtraError

try:
    from gsprune.kernels.launch import DEFAULT_STREAM, INTERPRETED, Launch, current_stream
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    raise MissingExtraError("triton", "triton") from error
from gsprune.kernels.score import sums
from gsprune.kernels.slice import slice_tensors

__all__ = ["TritonBackend"]


class TritonBackend:
    """One launch reads all weights, and one launch slices all tensors. The host waits only for the sums.

    See `gsprune.backends.Backend` for its methods.

    Attributes:
        launches: the launches of the last call, so that tests can check the path taken.

    Args:
        device: a device of the tensors' type.

    Raises:
        ValueError: the device is not a CUDA device, and the kernels are not interpreted.
    """

    name = "triton"
    _streams: ClassVar[set[int]] = set()  # the streams on which any backend has launched slices

    def __init__(self, device: torch.device) -> None:
        if device.type != ("cpu" if INTERPRETED else "cuda"):
            raise ValueError(
                f"`backend` 'triton' works on CUDA tensors, but the model is on {str(device)!r}; use backend='auto', "
                "or, to test the kernels on the CPU, set TRITON_INTERPRET=1 before triton is imported"
            )
        self.launches: list[Launch] = []
        self._device_type = device.type

    def axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: str,
    ) -> Float64Array:
        """See `Backend.axis_sums`."""
        with self._on_device_of(tensors):
            found, self.launches = sums(tensors, axes, others, statistic)
        return found

    def select_groups(self, scores: Float32Array, first_unit: IntArray, kept: IntArray) -> BoolArray:
        """See `Backend.select_groups`. The core is used, because the scores are on the host."""
        return _core.select.select_groups(scores, first_unit, kept)

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """See `Backend.slice`; the results are filled in the order of the current stream."""
        with self._on_device_of(tensors):
            results, self.launches = slice_tensors(list(tensors), list(patterns), list(pattern_of))
            if self._device_type == "cuda":
                self._wait_for_reading()
        return results

    def rewrite(
        self,
        tensors: Sequence[Tensor],
        patterns: Sequence[Pattern],
        pattern_of: Sequence[int],
        num_owned: int,
        entries: Sequence[tuple[dict[Any, Any], Any, Any]],
    ) -> None:
        """See `CppBackend.rewrite`. This method differs in two points.

        The tensors are filled in the order of the current stream, so work on other streams must wait for it. And Python
        code may run before the exchange (but not during it), so the exchange checks that no tensor has moved since it
        was sliced.

        Raises:
            ValueError: as for `slice`.
            RuntimeError: a tensor has moved; nothing is changed.
        """
        with torch.no_grad():
            exchange = _core.launch.prepare_exchange(list(tensors), num_owned, list(entries))
            _core.launch.install_exchange(exchange, self.slice(tensors, patterns, pattern_of))

    def _wait_for_reading(self) -> None:
        """Keep other streams off the tensors' memory while launched kernels may still read it.

        A freed tensor returns its memory to the stream that it was made on. For slices that is the stream of their
        launch, so no wait is needed as long as this has always been the default stream. Otherwise the host waits:
        `record_stream` would take 5 us per tensor, and ignores tensors that share a block. (A user who makes tensors
        on another stream and slices them on the default one must synchronize the two.)
        """
        self._streams.add(current_stream())  # Triton's function: torch's takes 5 us, because it makes an object
        if self._streams != {DEFAULT_STREAM}:
            torch.cuda.current_stream().synchronize()

    def _on_device_of(self, tensors: Sequence[Tensor]) -> AbstractContextManager[object]:
        """A context with the first tensor's device as the current one; the core refuses tensors on another device.

        Raises:
            ValueError: the device is of another type.
        """
        if not tensors or not isinstance(tensors[0], Tensor):
            return nullcontext()
        device = tensors[0].device
        if device.type != self._device_type:
            raise ValueError(
                f"`tensors[0]` must be on a {self._device_type} device, got {str(device)!r}; use backend='torch' for a"
                " model that is spread over several devices"
            )
        return torch.cuda.device(device) if self._device_type == "cuda" else nullcontext()
