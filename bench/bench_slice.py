"""Slicing weights, gradients and both moments along both axes, against copying as many bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from cases import extra_info, four_tensors, gpu_backend
from floors import Floor
from networks import NETWORKS
from torch import Tensor

from gsprune.backends import CppBackend, Pattern, TorchBackend

Slice = Callable[[Sequence[Tensor], Sequence[Pattern], Sequence[int]], list[Tensor]]


def _by_torch(tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
    """The usual formulation: one `index_select` per axis."""
    keeps = [[(axis, torch.from_numpy(kept)) for axis, kept in pattern] for pattern in patterns]
    results = []
    for tensor, which in zip(tensors, pattern_of, strict=True):
        sliced = tensor
        for axis, kept in keeps[which]:
            sliced = sliced.index_select(axis, kept)
        results.append(sliced)
    return results


def _by_triton(tensors: Sequence[Tensor], patterns: Sequence[Pattern], pattern_of: Sequence[int]) -> list[Tensor]:
    """On the GPU; the tensors are there already."""
    results = gpu_backend().slice(tensors, patterns, pattern_of)
    torch.cuda.synchronize()
    return results


PROVIDERS: dict[str, Slice] = {
    "cpp": CppBackend().slice,
    "triton": _by_triton,
    "cpp, 1 thread": CppBackend(num_threads=1).slice,
    "torch": _by_torch,
    "reference": TorchBackend().slice,
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_slice(benchmark, network: str, provider: str) -> None:
    if provider == "reference" and network in ("impala-8", "resnet-50"):
        pytest.skip("the definition is not meant for networks of this size")
    benchmark.group = f"slice {network}"
    _, *arguments = four_tensors(network)
    expected = _by_torch(*arguments)
    if provider == "triton":
        gpu_backend()
        arguments[0] = [tensor.cuda() for tensor in arguments[0]]
    results: list[Tensor] = []

    def run() -> None:
        # The slices of the round before are alive until these have taken their place, as in training.
        results[:] = PROVIDERS[provider](*arguments)

    run()
    assert all(torch.equal(got.cpu(), right) for got, right in zip(results, expected, strict=True))
    benchmark.extra_info.update(extra_info(network), provider=provider, bytes=sum(t.nbytes for t in expected))
    del expected
    benchmark.pedantic(run, rounds=11, warmup_rounds=3)


@pytest.mark.parametrize("network", NETWORKS)
def test_floor_of_slices(benchmark, network: str) -> None:
    benchmark.group = f"slice {network}"
    _, *arguments = four_tensors(network)
    num_bytes = sum(tensor.nbytes for tensor in _by_torch(*arguments))
    benchmark.extra_info.update(extra_info(network), provider="floor", bytes=num_bytes)
    benchmark.pedantic(Floor(0, num_bytes, is_chain=False).best(), rounds=11, warmup_rounds=2)
