"""The backend of the compiled core, for CPU tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from gsprune import _core
from gsprune.arrays import BoolArray, Float32Array, Float64Array, IntArray
from gsprune.backends.protocol import Pattern

__all__ = ["CppBackend", "bind_torch"]


def bind_torch(
    exchange_api: object = getattr(Tensor, "__dlpack_c_exchange_api__", None),
    empty_strided: Callable[..., Tensor] = torch.empty_strided,
) -> None:
    """Give the core the parts of torch that it needs, because it is compiled without torch.

    Args:
        exchange_api: torch's DLPack exchange table; None (torch before 2.10) reads tensor attributes instead.
        empty_strided: makes tensors in torch's own memory.
    """
    _core.tensor.bind_torch(
        tensor_type=Tensor,
        parameter_type=Parameter,
        exchange_api=exchange_api,
        empty_strided=empty_strided,
        float_dtypes={getattr(torch, name): number for number, name in enumerate(_core.tensor.FLOAT_DTYPES)},
        set=Tensor.set_,
        untyped_storage=Tensor.untyped_storage,
        increment_version=increment_version,
    )


bind_torch()


class CppBackend:
    """The compiled core; see `gsprune.backends.Backend` for its methods.

    Args:
        num_threads: the most threads to use; None calls ``torch.get_num_threads()`` at every use. The results do not
            depend on it.
        isa: the instruction set: "auto", "plain" or "avx2"; None uses the environment variable
            ``GSPRUNE_ISA`` if it is set, and "auto" otherwise. The results do not depend on it.

    Raises:
        ValueError: `num_threads` is below 1. An unknown instruction set raises an error at its first use.
    """

    name = "cpp"

    def __init__(self, num_threads: int | None = None, isa: str | None = None) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"`num_threads` must be >= 1 or None, got {num_threads}")
        self._num_threads = num_threads
        self._isa = isa

    def _resources(self) -> tuple[int, str]:
        isa = os.environ.get("GSPRUNE_ISA", "auto") if self._isa is None else self._isa
        return self._num_threads or torch.get_num_threads(), isa

    def axis_sums(
        self,
        tensors: list[Tensor],
        axes: list[tuple[int, ...]],
        others: Sequence[Tensor | None] | None,
        statistic: str,
    ) -> Float64Array:
        """See `Backend.axis_sums`."""
        others = None if others is None else list(others)
        return _core.score.axis_sums(tensors, axes, others, statistic, *self._resources())

    def select_groups(self, scores: Float32Array, first_unit: IntArray, kept: IntArray) -> BoolArray:
        """See `Backend.select_groups`."""
        return _core.select.select_groups(scores, first_unit, kept)

    def slice(self, tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
        """See `Backend.slice`."""
        return _core.slice.slice(list(tensors), list(patterns), list(pattern_of), *self._resources())

    def rewrite(
        self,
        tensors: Sequence[Tensor],
        patterns: Sequence[Pattern],
        pattern_of: Sequence[int],
        num_owned: int,
        entries: Sequence[tuple[dict[Any, Any], Any, Any]],
    ) -> None:
        """Replace every tensor by its slice and set dictionary entries, or change nothing if something fails.

        No Python code runs between the changes. So no signal handler sees a part of them, and no thread sees memory
        that is not filled yet. (Some torch calls let other threads run, which may see a network that is partly sliced.)

        Args:
            tensors: as for `slice`; they get the slices' storage.
            patterns: the distinct patterns.
            pattern_of: index of each tensor's pattern.
            num_owned: number of tensors, at the start of the list, that belong to modules. A live autograd graph may
                accumulate into them, even if they require no gradient at present.
            entries: (dictionary, key, value), set after the tensors; attributes are entries of ``__dict__``.

        Raises:
            ValueError: as for `slice`.
        """
        with torch.no_grad():
            _core.slice.rewrite(
                list(tensors), list(patterns), list(pattern_of), num_owned, list(entries), *self._resources()
            )
