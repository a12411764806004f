"""The Triton provider keeps the protocol of the backends and refuses what its kernels don't know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from by_group import SumJob, axis_sums, select_one
from hashed_once import HashedOnce

import gsprune
from gsprune.backends import TorchBackend, get_backend

pytest.importorskip("triton")

from gsprune.backends.triton import TritonBackend
from gsprune.kernels.launch import INTERPRETED


@pytest.fixture
def backend(device: torch.device) -> TritonBackend:
    return TritonBackend(device)


def keep(*positions: int) -> np.ndarray:
    return np.asarray(positions, np.int64)


def test_it_is_what_get_backend_gives_and_answers_as_the_torch_provider(device: torch.device) -> None:
    backend = get_backend("triton", device)
    assert backend.name == "triton"
    tensor = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(0)).to(device)
    job = SumJob(tensor, (0, 1))
    pattern = ((0, keep(0, 2, 6)), (1, keep(1, 3)))
    other = TorchBackend()
    for ours, theirs in zip(axis_sums(backend, [job], "abs")[0], axis_sums(other, [job], "abs")[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    assert torch.equal(backend.slice([tensor], [pattern], [0])[0], other.slice([tensor], [pattern], [0])[0])
    scores = np.asarray([1.0, 3.0, 3.0, -0.0, 0.0, 2.0], np.float32)
    for count in range(len(scores) + 1):
        assert np.array_equal(select_one(backend, scores, count), select_one(other, scores, count))


def test_it_tells_what_it_launched(backend: TritonBackend, device: torch.device) -> None:
    axis_sums(backend, [SumJob(torch.ones(4, 4, device=device), (0, 1))] * 3, "abs")
    assert [(launch.kernel, launch.jobs) for launch in backend.launches] == [("score", 3), ("fold", 6)]
    backend.slice([torch.ones(4, device=device)] * 2, [((0, keep(1, 2)),)], [0, 0])
    assert [(launch.kernel, launch.jobs) for launch in backend.launches] == [("slice", 2)]


def test_a_second_tensor_is_not_read_where_the_statistic_has_none(backend: TritonBackend, device: torch.device) -> None:
    tensor = torch.ones(3, 2, device=device)
    sums = axis_sums(backend, [SumJob(tensor, (0,), torch.full_like(tensor, float("nan")))], "square")
    assert sums[0][0].tolist() == [2.0, 2.0, 2.0]


def test_bad_jobs_are_named(backend: TritonBackend, device: torch.device) -> None:
    good = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"`tensors\[1\]` must be float32, float64, bfloat16 or float16"):
        axis_sums(backend, [SumJob(good, (0,)), SumJob(good.int(), (0,))], "abs")
    for axes in ((2,), (-1,)):
        with pytest.raises(ValueError, match=r"`axes\[0\]` must lie in \[0, 2\)"):
            axis_sums(backend, [SumJob(good, axes)], "abs")
    with pytest.raises(ValueError, match=r"`axes\[0\]` has 0 twice"):
        axis_sums(backend, [SumJob(good, (0, 0))], "abs")
    with pytest.raises(ValueError, match=r"`others\[0\]` must be a tensor for this statistic, got None"):
        axis_sums(backend, [SumJob(good, (0,))], "product")
    for other in (good.T, good.double()):
        with pytest.raises(ValueError, match=r"`others\[0\]` must have the shape and dtype of `tensors\[0\]`"):
            axis_sums(backend, [SumJob(good, (0,), other)], "product")
    with pytest.raises(ValueError, match=r"`tensors\[0\]` must be on a .* device, got 'meta'"):
        axis_sums(backend, [SumJob(good.to("meta"), (0,))], "abs")
    with pytest.raises(ValueError, match=r"`tensors\[1\]` must be a strided .*tensor"):
        axis_sums(backend, [SumJob(good, (0,)), SumJob(good.to("meta"), (0,))], "abs")


@pytest.mark.parametrize(
    ("keeps", "message"),
    [
        (((0, keep(0)), (0, keep(1))), r"`patterns\[0\]` has axis 0 twice"),
        (((0, keep(1, 0)),), "ascending order without repeats"),
        (((0, keep(1, 1)),), "ascending order without repeats"),
        (((0, np.zeros(1, np.int32)),), "contiguous one-dimensional int64"),
        (((2, keep(0)),), "has axis 2, which must be < 2"),
        (((0, keep(0, 3)),), "keeps position 3 of axis 0, which must be < 3"),
        (((0, keep(-1, 1)),), "got -1 at index 0"),
    ],
)
def test_bad_patterns_are_named(keeps: tuple, message: str, backend: TritonBackend, device: torch.device) -> None:
    with pytest.raises(ValueError, match=message):
        backend.slice([torch.ones(3, 2, device=device)], [keeps], [0])


def test_a_pattern_that_is_not_there_is_refused(backend: TritonBackend, device: torch.device) -> None:
    tensor = torch.ones(3, device=device)
    with pytest.raises(ValueError, match=r"`pattern_of\[0\]` must lie in \[0, 1\), the number of patterns, got 1"):
        backend.slice([tensor], [((0, keep(0)),)], [1])
    with pytest.raises(ValueError, match="`pattern_of` must have an entry per tensor, that is 1, got 2"):
        backend.slice([tensor], [((0, keep(0)),)], [0, 0])


def test_select_refuses_nan_and_a_count_that_is_not_there(backend: TritonBackend) -> None:
    with pytest.raises(ValueError, match="NaN"):
        select_one(backend, np.asarray([1.0, np.nan], np.float32), 1)
    with pytest.raises(ValueError, match=r"`kept\[0\]` must lie in \[0, 2\].*got 3"):
        select_one(backend, np.zeros(2, np.float32), 3)


def test_it_does_not_serve_the_other_kind_of_device() -> None:
    with pytest.raises(ValueError, match="`backend` 'triton' works on CUDA tensors"):
        TritonBackend(torch.device("cuda" if INTERPRETED else "cpu"))


def test_whole_steps_are_those_of_the_core(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    in_one_call = []
    original = TritonBackend.rewrite

    def counted(backend: TritonBackend, *args: Any) -> None:
        in_one_call.append(args)
        original(backend, *args)

    monkeypatch.setattr(TritonBackend, "rewrite", counted)

    def stepped(where: torch.device, backend: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        layers = (torch.nn.Conv2d(3, 12, 3), torch.nn.ReLU(), torch.nn.Conv2d(12, 9, 3), torch.nn.Flatten())
        model = torch.nn.Sequential(*layers, torch.nn.Linear(144, 4)).to(where)
        example = torch.linspace(-1, 1, 2 * 3 * 64, device=where).view(2, 3, 8, 8)
        optimizer = torch.optim.Adam(model.parameters())
        model(example).square().sum().backward()
        optimizer.step()
        for sparsity in (0.2, 0.4, 0.5):  # the last two need no check: everything is changed in one call
            gsprune.prune_step(model, sparsity, optimizer=optimizer, example_inputs=example, backend=backend)
        gradients = [parameter.grad for parameter in model.parameters()]
        moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        return [t.detach().cpu() for t in (*model.parameters(), *gradients, *moments)]

    ours, core = stepped(device, "triton"), stepped(torch.device("cpu"), "cpp")
    assert len(in_one_call) == 2
    for found, expected in zip(ours, core, strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)  # a GPU's convolutions differ a little
    assert min(parameter.shape[0] for parameter in ours[:3]) < 9


def test_a_rewrite_that_fails_changes_nothing(backend: TritonBackend, device: torch.device) -> None:
    weight, state = torch.nn.Parameter(torch.ones(4, 2, device=device)), torch.ones(4, 2, device=device)
    entries: list = [({}, "key", 1), "no entry"]
    with pytest.raises(TypeError, match=r"`entries\[1\]` must be \(dictionary, key, value\)"):
        backend.rewrite([weight, state], [((0, keep(0, 2)),)], [0, 0], 1, entries)
    assert weight.shape == state.shape == (4, 2)
    assert entries[0][0] == {}
    backend.rewrite([weight, state], [((0, keep(0, 2)),)], [0, 0], 1, entries[:1])
    assert weight.shape == state.shape == (2, 2)
    assert entries[0][0] == {"key": 1}


def test_an_exchange_that_fails_at_its_end_is_taken_back(backend: TritonBackend, device: torch.device) -> None:
    whole = torch.arange(24.0, device=device).view(12, 2)
    tensors = [torch.nn.Parameter(whole[2:6]), whole[6:10].clone(), torch.zeros(4, 0, device=device)]
    places = [(t.data_ptr(), t.storage_offset(), t.stride(), t.tolist()) for t in tensors]
    state = {"old": 1}
    entries: list = [(state, "old", 2), ({}, HashedOnce(), 3)]
    with pytest.raises(RuntimeError, match="no second time"):
        backend.rewrite(tensors, [((0, keep(0, 2)),)], [0, 0, 0], 1, entries)
    assert [(t.data_ptr(), t.storage_offset(), t.stride(), t.tolist()) for t in tensors] == places
    assert state == {"old": 1}
    backend.rewrite(tensors, [((0, keep(0, 2)),)], [0, 0, 0], 1, entries[:1])
    assert [t.tolist() for t in tensors] == [whole[[2, 4]].tolist(), whole[[6, 8]].tolist(), [[], []]]


def test_sums_come_back_whatever_the_default_device_is(backend: TritonBackend, device: torch.device) -> None:
    made = []
    original = torch.empty

    def spied(*args: Any, **kwargs: Any) -> torch.Tensor:
        made.append(kwargs)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch, "empty", spied)
        sums = axis_sums(backend, [SumJob(torch.ones(3, 2, device=device), (0,))], "abs")
    assert sums[0][0].tolist() == [2.0, 2.0, 2.0]
    assert all("device" in kwargs for kwargs in made)


def test_the_host_waits_until_memory_is_read_as_soon_as_there_are_several_streams(
    backend: TritonBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []
    monkeypatch.setattr(TritonBackend, "_streams", set())

    class Stream:
        def synchronize(self) -> None:
            waits.append(True)

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    for stream in (0, 7, 0):
        monkeypatch.setattr("gsprune.backends.triton.current_stream", lambda stream=stream: stream)
        backend._wait_for_reading()
        waits.append(False)
    assert waits == [False, True, False, True, False]
