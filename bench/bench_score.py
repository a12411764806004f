"""Scores: the sums along both axes of every weight, against reading every byte once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from cases import after_a_step, extra_info, gpu_backend, matrices, trained
from floors import Floor
from networks import NETWORKS
from torch import Tensor

from gsprune.backends import Backend, CppBackend, TorchBackend


class SumJob(NamedTuple):
    """Sums of one weight along some axes."""

    tensor: Tensor
    axes: tuple[int, ...]
    other: Tensor


CRITERIA = {"l1": "abs", "taylor": "product"}
Score = Callable[[list[SumJob], str], list[tuple[np.ndarray, ...]]]


def _by_torch(jobs: list[SumJob], statistic: str) -> list[tuple[np.ndarray, ...]]:
    """The usual formulation, in float32."""
    results = []
    for job in jobs:
        values = job.tensor.detach().abs() if statistic == "abs" else job.tensor.detach() * job.other
        rest = tuple(range(2, values.ndim))
        results.append((values.sum((1, *rest)).numpy(), values.sum((0, *rest)).numpy()))
    return results


def _by_triton(jobs: list[SumJob], statistic: str) -> list[tuple[np.ndarray, ...]]:
    """On the GPU, the way of the sums to the host included."""
    return _by_job(_sums(gpu_backend(), jobs, statistic), jobs)


def _by_core(jobs: list[SumJob], statistic: str) -> np.ndarray:
    """As a step calls it: one array."""
    return _sums(CppBackend(), jobs, statistic)


def _sums(backend: Backend, jobs: list[SumJob], statistic: str) -> np.ndarray:
    tensors, axes, others = map(list, zip(*jobs, strict=True))
    return backend.axis_sums(tensors, axes, others if "product" in statistic else None, statistic)


PROVIDERS: dict[str, Score | Callable[[list[SumJob], str], np.ndarray]] = {
    "cpp": _by_core,
    "triton": _by_triton,
    "torch": _by_torch,
    "reference": lambda jobs, statistic: _by_job(_sums(TorchBackend(), jobs, statistic), jobs),
}


def _jobs(name: str, device: str = "cpu") -> list[SumJob]:
    model, _, _ = trained(name)
    weights = list(matrices(list(model.parameters())))
    gradients = after_a_step([weight.grad for weight in weights])
    weights = after_a_step(weights)
    return [SumJob(w.to(device), (0, 1), g.to(device)) for w, g in zip(weights, gradients, strict=True)]


def _bytes(jobs: list[SumJob], criterion: str) -> int:
    return sum(job.tensor.nbytes for job in jobs) * (2 if criterion == "taylor" else 1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_score(benchmark, network: str, criterion: str, provider: str) -> None:
    if provider == "reference" and network in ("impala-8", "resnet-50"):
        pytest.skip("the definition is not meant for networks of this size")
    benchmark.group = f"score {criterion} {network}"
    if provider == "triton":
        gpu_backend()
    jobs = _jobs(network, "cuda" if provider == "triton" else "cpu")
    statistic = CRITERIA[criterion]
    benchmark.extra_info.update(extra_info(network), provider=provider, bytes=_bytes(jobs, criterion))
    results = benchmark.pedantic(PROVIDERS[provider], (jobs, statistic), rounds=15, warmup_rounds=2)
    if provider == "cpp":
        results = _by_job(results, jobs)
    for sums, job in zip(results, jobs, strict=True):
        _assert_right(sums, job, statistic)


def _by_job(flat: np.ndarray, jobs: list[SumJob]) -> list[tuple[np.ndarray, ...]]:
    lengths = [job.tensor.shape[axis] for job in jobs for axis in job.axes]
    vectors = np.split(flat, np.cumsum(lengths)[:-1])
    return list(zip(vectors[::2], vectors[1::2], strict=True))


def _assert_right(sums: tuple[np.ndarray, ...], job: SumJob, statistic: str) -> None:
    weights = job.tensor.detach().double().cpu()
    values: Tensor = weights.abs() if statistic == "abs" else weights * job.other.double().cpu()
    scale = float(values.abs().sum())
    for axis, got in enumerate(sums):
        expected = values.movedim(axis, 0).flatten(1).sum(1).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_floor_of_scores(benchmark, network: str, criterion: str) -> None:
    benchmark.group = f"score {criterion} {network}"
    num_bytes = _bytes(_jobs(network), criterion)
    benchmark.extra_info.update(extra_info(network), provider="floor", bytes=num_bytes)
    benchmark.pedantic(Floor(num_bytes, 0).best(), rounds=15, warmup_rounds=2)


def test_the_memory_is_read_once_and_not_copied(benchmark) -> None:
    # Channels last costs what contiguous costs: nothing goes through another format.
    benchmark.group = "score l1 channels_last"
    weight = torch.randn(512, 512, 3, 3).contiguous(memory_format=torch.channels_last)
    jobs = [SumJob(weight, (0, 1), weight)]
    results = benchmark.pedantic(_by_core, (jobs, "abs"), rounds=15, warmup_rounds=2)
    _assert_right(_by_job(results, jobs)[0], jobs[0], "abs")
