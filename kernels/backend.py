"""The Triton provider of the three operations, for CUDA tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gsprune import _core
from gsprune.errors import MissingExtraError

try:
    from gsprune.kernels.launch import DEFAULT_STREAM, INTERPRETED, Launch, current_stream
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    raise MissingExtraError("triton", "triton") from error
from gsprune.kernels.score import sums
from gsprune.kernels.slice import Keeps, slice_tensors

__all__ = ["TritonBackend"]


class _SumJob(Protocol):
    """`gsprune.backends.SumJob`, which lies above this package."""

    @property
    def tensor(self) -> Tensor: ...
    @property
    def axes(self) -> tuple[int, ...]: ...
    @property
    def other(self) -> Tensor | None: ...


class _Statistic(Protocol):
    """`gsprune.backends.Statistic`."""

    @property
    def value(self) -> str: ...


class TritonBackend:
    """CUDA tensors: one launch reads all weights, one slices all tensors; the host waits once, for the sums.

    Attributes:
        name: "triton".
        launches: What the last call launched, for tests that ask which path was taken.
    """

    name = "triton"
    _streams: ClassVar[set[int]] = set()  # on which slices were launched, by any backend

    def __init__(self, device: torch.device) -> None:
        """A backend for tensors on that kind of device.

        Raises:
            ValueError: Not a CUDA device, and the kernels are not interpreted.
        """
        if device.type != ("cpu" if INTERPRETED else "cuda"):
            raise ValueError(
                f"`backend` 'triton' works on CUDA tensors, but the model is on {str(device)!r}; use backend='auto', "
                "or, to test the kernels on the CPU, set TRITON_INTERPRET=1 before triton is imported"
            )
        self.launches: list[Launch] = []
        self._kind = device.type

    def flat_axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: _Statistic,
    ) -> npt.NDArray[np.float64]:
        """See `gsprune.backends.Backend.flat_axis_sums`."""
        with self._on_device_of(tensors):
            found, self.launches = sums(tensors, axes, others, statistic.value)
        return found

    def axis_sums(self, jobs: Sequence[_SumJob], statistic: _Statistic) -> list[tuple[npt.NDArray[np.float64], ...]]:
        """See `gsprune.backends.Backend.axis_sums`."""
        tensors, axes = [job.tensor for job in jobs], [job.axes for job in jobs]
        flat = self.flat_axis_sums(tensors, axes, [job.other for job in jobs], statistic)
        lengths = [job.tensor.shape[axis] for job in jobs for axis in job.axes]
        vectors = iter(np.split(flat, np.cumsum(lengths)[:-1]))
        return [tuple(next(vectors) for _ in job.axes) for job in jobs]

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Keeps], pattern_of: Sequence[int]) -> list[Tensor]:
        """See `gsprune.backends.Backend.slice`; the results are filled in the order of the current stream."""
        with self._on_device_of(tensors):
            results, self.launches = slice_tensors(list(tensors), list(patterns), list(pattern_of))
            if self._kind == "cuda":
                self._wait_for_reading()
        return results

    def rewrite(
        self,
        tensors: Sequence[Tensor],
        patterns: Sequence[Keeps],
        pattern_of: Sequence[int],
        num_owned: int,
        entries: Sequence[tuple[dict[Any, Any], Any, Any]],
    ) -> None:
        """See `gsprune.backends.CppBackend.rewrite`.

        What differs: the tensors are filled in the order of the current stream, which work on other streams must wait
        for; and Python code may run before the exchange (but not in it), so the exchange looks whether the tensors
        still lie where they were sliced from.

        Raises:
            ValueError: As for `slice`.
            RuntimeError: Somebody has changed a tensor meanwhile; nothing is exchanged.
        """
        with torch.no_grad():
            exchange = _core.prepare_exchange(list(tensors), num_owned, list(entries))
            _core.install_exchange(exchange, self.slice(tensors, patterns, pattern_of))

    def select(self, scores: npt.NDArray[np.float32], keep: int) -> npt.NDArray[np.int64]:
        """See `gsprune.backends.Backend.select`: on the host, where the sums are, and by the same code as there."""
        return _core.select(scores, keep)

    def _wait_for_reading(self) -> None:
        """Lets no other stream have the tensors' memory while what was launched on the current one may still read it.

        Whoever lets go of a tensor gives its memory back to the stream that it was made on, which for slices is the one
        they were launched on: nothing is to be done as long as that has always been the default one. Else the host
        waits: `record_stream` would take 5 us for each tensor, and knows nothing of those that share a block. (What
        somebody made on another stream and slices on the default one is theirs to keep from that stream.)
        """
        self._streams.add(current_stream())  # asked of Triton, since torch makes an object of it, which takes 5 us
        if self._streams != {DEFAULT_STREAM}:
            torch.cuda.current_stream().synchronize()

    def _on_device_of(self, tensors: Sequence[Tensor]) -> AbstractContextManager[object]:
        """The device of the first tensor as a context; the core says which of the others is elsewhere.

        Raises:
            ValueError: It is of another kind.
        """
        if not tensors or not isinstance(tensors[0], Tensor):
            return nullcontext()
        device = tensors[0].device
        if device.type != self._kind:
            raise ValueError(
                f"`tensors[0]` must be on a {self._kind} device, got {str(device)!r}; use backend='torch' for a model"
                " that is spread over several devices"
            )
        return torch.cuda.device(device) if self._kind == "cuda" else nullcontext()
