"""The three operations that touch every weight, behind one small protocol: sums along axes, selection, slicing.

Three providers give the same results: ``cpp`` (the compiled core, CPU tensors), ``triton`` (CUDA tensors) and ``torch``
(the plain-torch definition in `gsprune.kernels.reference`, any device).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from gsprune import _core
from gsprune.kernels import reference
from gsprune.tracing.graph import IntArray

__all__ = [
    "Backend",
    "BackendName",
    "CppBackend",
    "Pattern",
    "Statistic",
    "SumJob",
    "bind_torch",
    "get_backend",
    "rewriter_of",
    "select_groups",
]


def bind_torch(
    exchange_api: object = getattr(Tensor, "__dlpack_c_exchange_api__", None),
    empty_strided: Callable[..., Tensor] = torch.empty_strided,
) -> None:
    """Tell the core what it has to know of torch, which it is built without; tests bind other things.

    Args:
        exchange_api: torch's exchange table; None, as of a torch before 2.10, lets attributes be read instead.
        empty_strided: makes tensors in torch's own memory.
    """
    dtypes = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
    _core.bind_torch(Tensor, Parameter, exchange_api, empty_strided, dtypes)


bind_torch()
_core.bind_exchange(Tensor.set_, Tensor.untyped_storage, increment_version)

BackendName = Literal["auto", "cpp", "triton", "torch"]

Pattern = tuple[tuple[int, IntArray], ...]
"""What is kept of a tensor: (axis, kept positions sorted ascending without repeats, int64), each axis at most once.

Share one pattern between a weight, its gradient and its moments: it is resolved once per call.
"""


class Statistic(Enum):
    """What is summed: w is the weight, g the other tensor (a gradient)."""

    ABS = "abs"  # |w|
    SQUARE = "square"  # w^2
    PRODUCT = "product"  # w g
    ABS_PRODUCT = "abs_product"  # |w g|
    SQUARE_PRODUCT = "square_product"  # (w g)^2

    @property
    def needs_other(self) -> bool:
        """Whether the statistic reads a second tensor."""
        return self not in (Statistic.ABS, Statistic.SQUARE)


class SumJob(NamedTuple):
    """Sums over everything but one axis, for each of some axes, in one read; a tuple, since every step makes many.

    Attributes:
        tensor: w; float32, float64, bfloat16 or float16, at least one dimension, any strides.
        axes: the axes, each in [0, ndim) and at most once.
        other: g, same shape and dtype; needed where `Statistic.needs_other`.
    """

    tensor: Tensor
    axes: tuple[int, ...]
    other: Tensor | None = None


class Backend(Protocol):
    """A provider of the three operations."""

    @property
    def name(self) -> str:
        """``cpp``, ``triton`` or ``torch``."""

    def axis_sums(self, jobs: Sequence[SumJob], statistic: Statistic) -> list[tuple[npt.NDArray[np.float64], ...]]:
        """Sums of `statistic` along axes, accumulated in float64.

        Returns:
            per job one (shape[axis],) vector per axis.

        Raises:
            ValueError: a dtype, shape or axis does not fit; the message names the job.
        """

    def flat_axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: Statistic,
    ) -> npt.NDArray[np.float64]:
        """`axis_sums` as one array: the vectors of one tensor after the other.

        Args:
            tensors: as `SumJob.tensor`.
            axes: of each tensor.
            others: of each tensor; None where the statistic needs none.
            statistic: what is summed.

        Raises:
            ValueError: a dtype, shape or axis does not fit; the message names the tensor.
        """

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """The kept part of every tensor, in new tensors that own their storage.

        Args:
            tensors: any dtype and strides; not changed.
            patterns: what is kept.
            pattern_of: per tensor the index of its pattern.

        Returns:
            per tensor a new one of the same dtype, device and memory format, without grad.

        Raises:
            ValueError: a pattern does not fit a tensor; the message names both.
        """

    def select(self, scores: npt.NDArray[np.float32], keep: int) -> IntArray:
        """Sorted indices of the `keep` highest scores; of equal scores the lower index is kept.

        Raises:
            ValueError: a score is NaN, or `keep` is not in [0, len(scores)].
        """


class TorchBackend:
    """The definition itself, on any device: slow, and right by construction."""

    name = "torch"

    def axis_sums(self, jobs: Sequence[SumJob], statistic: Statistic) -> list[tuple[npt.NDArray[np.float64], ...]]:
        """See `Backend.axis_sums`."""
        results = []
        for job in jobs:
            sums = reference.axis_sums(job.tensor, job.axes, job.other, statistic.value)
            results.append(tuple(vector.cpu().numpy() for vector in sums))
        return results

    def flat_axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: Statistic,
    ) -> npt.NDArray[np.float64]:
        """See `Backend.flat_axis_sums`."""
        jobs = list(map(SumJob, tensors, axes, [None] * len(tensors) if others is None else others))
        vectors = [vector for result in self.axis_sums(jobs, statistic) for vector in result]
        return np.concatenate([np.zeros(0), *vectors])

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """See `Backend.slice`."""
        sliced = []
        for tensor, which in zip(tensors, pattern_of, strict=True):
            keeps = [(axis, torch.from_numpy(kept).to(tensor.device)) for axis, kept in patterns[which]]
            sliced.append(reference.slice_tensor(tensor, keeps))
        return sliced

    def select(self, scores: npt.NDArray[np.float32], keep: int) -> IntArray:
        """See `Backend.select`."""
        if np.isnan(scores).any():
            raise ValueError("`scores` must not hold NaN, which has no rank")
        if not 0 <= keep <= len(scores):
            raise ValueError(f"`keep` must lie in [0, len(scores)={len(scores)}], got {keep}")
        kept: IntArray = reference.select(torch.from_numpy(scores), keep).numpy()
        return kept


class CppBackend:
    """The compiled core: CPU tensors.

    Args:
        num_threads: how many threads work at most; None asks ``torch.get_num_threads()`` at every call. The results
            do not depend on it.
        isa: "auto" or the instruction set to use: "plain", "avx2" or "avx512"; None takes the environment variable
            ``GSPRUNE_ISA``, else "auto". The results do not depend on it.

    Raises:
        ValueError: a bad number of threads; an instruction set is checked where it is used.
    """

    name = "cpp"

    def __init__(self, num_threads: int | None = None, isa: str | None = None) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"`num_threads` must be >= 1 or None, got {num_threads}")
        self._num_threads = num_threads
        self._asked_isa = isa

    @property
    def _isa(self) -> str:
        return os.environ.get("GSPRUNE_ISA", "auto") if self._asked_isa is None else self._asked_isa

    def axis_sums(self, jobs: Sequence[SumJob], statistic: Statistic) -> list[tuple[npt.NDArray[np.float64], ...]]:
        """See `Backend.axis_sums`."""
        return _core.axis_sums(
            [job.tensor for job in jobs],
            [job.axes for job in jobs],
            [job.other for job in jobs],
            statistic.value,
            self._num_threads or torch.get_num_threads(),
            self._isa,
        )

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """See `Backend.slice`."""
        num_threads = self._num_threads or torch.get_num_threads()
        return _core.slice(list(tensors), list(patterns), list(pattern_of), num_threads, self._isa)

    def rewrite(
        self,
        tensors: Sequence[Tensor],
        patterns: Sequence[Pattern],
        pattern_of: Sequence[int],
        num_owned: int,
        entries: Sequence[tuple[dict[Any, Any], Any, Any]],
    ) -> None:
        """Let every tensor become its slice, and set entries of dictionaries: all, or where it fails nothing.

        No Python code runs between the changes, so that no signal handler sees a part of them, and no thread ever sees
        memory that is not filled yet. (Torch lets other threads run in some of its calls; those may see a network of
        which a part is sliced.)

        Args:
            tensors: as for `slice`; they take over the slices' storage.
            patterns: what is kept.
            pattern_of: per tensor the index of its pattern.
            num_owned: how many of the first tensors belong to modules: a graph that is still held may accumulate into
                them, also where they require no gradient at present.
            entries: (dictionary, key, value), set after the tensors; attributes are entries of ``__dict__``.

        Raises:
            ValueError: as for `slice`.
        """
        num_threads = self._num_threads or torch.get_num_threads()
        with torch.no_grad():
            _core.rewrite(
                list(tensors), list(patterns), list(pattern_of), num_owned, list(entries), num_threads, self._isa
            )

    def select(self, scores: npt.NDArray[np.float32], keep: int) -> IntArray:
        """See `Backend.select`."""
        return _core.select(scores, keep)

    def flat_axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: Statistic,
    ) -> npt.NDArray[np.float64]:
        """See `Backend.flat_axis_sums`: an array per axis would cost more than the sums of a small network."""
        num_threads = self._num_threads or torch.get_num_threads()
        others = None if others is None else list(others)
        return _core.flat_axis_sums(tensors, axes, others, statistic.value, num_threads, self._isa)


class Rewrite(Protocol):
    """Makes all changes of a step in one call; see `CppBackend.rewrite`."""

    def __call__(
        self,
        tensors: Sequence[Tensor],
        patterns: Sequence[Pattern],
        pattern_of: Sequence[int],
        num_owned: int,
        entries: Sequence[tuple[dict[Any, Any], Any, Any]],
    ) -> None: ...


def rewriter_of(backend: Backend) -> Rewrite | None:
    """The backend's `rewrite`, if it has one. The definition has none: the core does not know all that it serves."""
    rewrite: Rewrite | None = getattr(backend, "rewrite", None)
    return rewrite


def select_groups(
    backend: Backend, scores: npt.NDArray[np.float32], first_unit: IntArray, kept: IntArray
) -> npt.NDArray[np.bool_]:
    """`Backend.select` for groups whose units lie one after the other.

    Args:
        backend: picks the indices.
        scores: (units,) float32 without NaN.
        first_unit: (groups + 1,) int64, where each group begins.
        kept: (groups,) int64, how many units each group keeps.

    Returns:
        (units,) bool: which are kept.

    Raises:
        ValueError: a score is NaN, or a group has not as many units.
    """
    if not isinstance(backend, TorchBackend):
        return _core.select_groups(scores, first_unit, kept)
    keep = np.ones(len(scores), dtype=bool)
    bounds = first_unit.tolist()
    for first, last, count in zip(bounds, bounds[1:], kept.tolist(), strict=False):
        if count < last - first:
            keep[first:last] = False
            keep[backend.select(scores[first:last], count) + first] = True
    return keep


def get_backend(name: BackendName, device: torch.device) -> Backend:
    """The provider of that name for tensors on `device`.

    Args:
        name: ``auto`` takes ``cpp`` for CPU tensors, ``triton`` for CUDA tensors and ``torch`` for any other device.
        device: where the tensors are.

    Raises:
        ValueError: the name is unknown, or that provider does not serve the device.
        MissingExtraError: triton is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"`backend` must be 'auto', 'cpp', 'triton' or 'torch', got {type(name).__name__}")
    return _provider(name, device)


@cache  # to look into the environment takes longer than to select
def _provider(name: str, device: torch.device) -> Backend:
    if name == "auto":
        name = {"cpu": "cpp", "cuda": "triton"}.get(device.type, "torch")
    if name == "torch":
        return TorchBackend()
    if name == "cpp":
        if device.type != "cpu":
            raise ValueError(
                f"`backend` 'cpp' works on CPU tensors, but these are on {str(device)!r}; use backend='auto' or 'torch'"
            )
        return CppBackend()
    if name == "triton":
        from gsprune.kernels.backend import TritonBackend

        return TritonBackend(device)
    raise ValueError(f"`backend` must be 'auto', 'cpp', 'triton' or 'torch', got {name!r}")
