"""Memory order and runs: literal tables, and PyTorch's own strides as the oracle."""

from __future__ import annotations

import pytest
import torch

from gsprune.kernels.layout import Run, dense, dense_strides, memory_order, runs


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (4, 1, 3, 3), (1, 4, 3, 3), (4, 3, 1, 1), (1, 1, 2, 2), (4, 3, 1, 5)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_dense_strides_are_pytorchs(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    tensor = torch.zeros(2, *shape[1:]).to(memory_format=memory_format)[: shape[0]]
    order = memory_order(tensor.shape, tensor.stride())
    assert torch.empty_strided(shape, dense_strides(shape, order)).is_contiguous(memory_format=memory_format)


def test_runs_alternate_between_rests_and_axes_in_memory_order() -> None:
    contiguous = torch.zeros(4, 3, 2, 5)
    order = memory_order(contiguous.shape, contiguous.stride())
    assert runs((4, 3, 2, 5), order, (0, 1)) == [Run(1, None), Run(4, 0), Run(1, None), Run(3, 1), Run(10, None)]
    assert runs((4, 3, 2, 5), order, (2,)) == [Run(12, None), Run(2, 2), Run(5, None)]
    last = contiguous.to(memory_format=torch.channels_last)
    order = memory_order(last.shape, last.stride())
    assert order == (0, 2, 3, 1)
    assert runs((4, 3, 2, 5), order, (0, 1)) == [Run(1, None), Run(4, 0), Run(10, None), Run(3, 1), Run(1, None)]


def test_dense_copies_only_what_has_gaps_or_overlaps() -> None:
    whole = torch.arange(60.0).view(4, 3, 5)
    for kept in (whole, whole.permute(2, 0, 1), whole[1:3]):
        assert dense(kept) is kept
    for copied in (whole[:, 1], whole[:, :, ::2], whole[:, :1].expand(4, 3, 5), whole[::2].permute(2, 1, 0)):
        result = dense(copied)
        assert result is not copied
        assert torch.equal(result, copied)
        assert memory_order(result.shape, result.stride()) == memory_order(copied.shape, copied.stride())
