"""The Triton provider of the three operations, for CUDA tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gsprune.errors import MissingExtraError

try:
    from gsprune.kernels.launch import INTERPRETED, Launch
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    raise MissingExtraError("triton", "triton") from error
from gsprune.kernels.score import STATISTIC_CODES, axis_sums
from gsprune.kernels.score_tables import DTYPE_CODES
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


class _Pattern(Protocol):
    """`gsprune.backends.Pattern`."""

    @property
    def keeps(self) -> Keeps: ...


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

    def axis_sums(self, jobs: Sequence[_SumJob], statistic: _Statistic) -> list[tuple[npt.NDArray[np.float64], ...]]:
        """Sums of `statistic` along axes, accumulated in float64; see `gsprune.backends.Backend.axis_sums`."""
        for index, job in enumerate(jobs):
            _check_job(f"job {index}", job, statistic.value)
        pairs = [(job.tensor, job.other if STATISTIC_CODES[statistic.value] >= 2 else None) for job in jobs]
        with self._on([tensor for tensor, _ in pairs] + [other for _, other in pairs if other is not None]):
            sums, self.launches = axis_sums(pairs, [job.axes for job in jobs], statistic.value)
        return sums

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[_Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """The kept part of every tensor; see `gsprune.backends.Backend.slice`."""
        keeps = [pattern.keeps for pattern in patterns]
        for index, pattern in enumerate(keeps):
            _check_pattern(f"pattern {index}", pattern)
        if len(tensors) != len(pattern_of):
            raise ValueError(f"`pattern_of` must hold one index per tensor, {len(tensors)}, got {len(pattern_of)}")
        fitting = set()  # a weight, its gradient and its moments are looked at once
        for index, (tensor, which) in enumerate(zip(tensors, pattern_of, strict=True)):
            if (tensor.shape, which) not in fitting:
                _check_fit(f"tensor {index}", tensor, which, keeps)
                fitting.add((tensor.shape, which))
        with self._on(tensors):
            results, self.launches = slice_tensors(tensors, keeps, pattern_of)
        return results

    def select(self, scores: npt.NDArray[np.float32], keep: int) -> npt.NDArray[np.int64]:
        """Sorted indices of the `keep` highest scores, on the host, where `axis_sums` has left its sums.

        Of equal scores the lower index is kept.

        Raises:
            ValueError: a score is NaN, or `keep` is not in [0, len(scores)].
        """
        if np.isnan(scores).any():
            raise ValueError("`scores` must not hold NaN, which has no rank")
        if not 0 <= keep <= len(scores):
            raise ValueError(f"`keep` must lie in [0, len(scores)={len(scores)}], got {keep}")
        kept: npt.NDArray[np.int64] = np.sort(np.argsort(-scores, kind="stable")[:keep])
        return kept

    def _on(self, tensors: Sequence[Tensor]) -> AbstractContextManager[object]:
        """The one device that all tensors are on, as a context.

        Raises:
            ValueError: They are on several, or on one of another kind.
        """
        devices = {tensor.device for tensor in tensors}
        if len(devices) > 1 or any(device.type != self._kind for device in devices):
            raise ValueError(
                f"all tensors must be on one {self._kind} device, got {sorted(map(str, devices))}; use backend='torch' "
                "for a model that is spread over several"
            )
        return torch.cuda.device(devices.pop()) if devices and self._kind == "cuda" else nullcontext()


def _check_job(name: str, job: _SumJob, statistic: str) -> None:
    """Refuses what `score.axis_sums` doesn't know."""
    tensor, other, axes = job.tensor, job.other, job.axes
    if tensor.dtype not in DTYPE_CODES:
        raise ValueError(f"{name}: `tensor` must be float32, float64, bfloat16 or float16, got {tensor.dtype}")
    if len(set(axes)) != len(axes) or not all(0 <= axis < tensor.ndim for axis in axes):
        raise ValueError(f"{name}: `axes` must be distinct and lie in [0, {tensor.ndim}), got {axes}")
    if STATISTIC_CODES[statistic] < 2:
        return
    if other is None:
        raise ValueError(f"{name}: `other` must be a tensor for the statistic {statistic!r}, got None")
    if other.shape != tensor.shape or other.dtype != tensor.dtype:
        raise ValueError(
            f"{name}: `other` must be {tuple(tensor.shape)} {tensor.dtype} as `tensor` is, "
            f"got {tuple(other.shape)} {other.dtype}"
        )


def _check_pattern(name: str, keeps: Keeps) -> None:
    """Refuses positions that are not sorted, and axes that come twice."""
    axes = [axis for axis, _ in keeps]
    if not axes or len(set(axes)) != len(axes):
        raise ValueError(f"{name}: `keeps` must name at least one axis and none twice, got {axes}")
    for axis, kept in keeps:
        if kept.ndim != 1 or kept.dtype != np.int64 or not (kept[1:] > kept[:-1]).all():
            raise ValueError(f"{name}: the positions kept along axis {axis} must be int64, 1-D and strictly ascending")


def _check_fit(name: str, tensor: Tensor, which: int, patterns: Sequence[Keeps]) -> None:
    """Refuses a pattern that points outside its tensor: the kernel would read there."""
    if not 0 <= which < len(patterns):
        raise ValueError(f"{name}: its pattern must lie in [0, {len(patterns)}), got {which}")
    for axis, kept in patterns[which]:
        if not 0 <= axis < tensor.ndim:
            raise ValueError(f"{name}: pattern {which} slices axis {axis}, but the tensor has {tensor.ndim} dimensions")
        if len(kept) and (kept[0] < 0 or kept[-1] >= tensor.shape[axis]):
            raise ValueError(
                f"{name}: pattern {which} keeps positions in [{kept[0]}, {kept[-1]}] along axis {axis}, "
                f"which has {tensor.shape[axis]}"
            )
