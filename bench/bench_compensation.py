"""What `compensate="linear"` adds to a step, beside one forward of the calibration batch through either network.

The bar is three forwards through each network. Times are those of the processor, so that a busy machine matters less;
run it with one thread: ``OMP_NUM_THREADS=1 pytest bench/bench_compensation.py``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import extra_info
from networks import NETWORKS
from torch import Tensor, nn

import gsprune

FRAMES = 512
BAR = 3  # forwards through each network
UNMEASURED = {("resnet-50", 0.05)}  # decompositions of nearly 2,048 channels; may be above the bar
ROUNDS = 3
MEASURED = [name for name in NETWORKS if name != "impala-8"]


def smooth_frames(example: Tensor) -> Tensor:
    """Random pictures whose neighbouring pixels are alike, of the example's type."""
    coarse = torch.rand(FRAMES, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    frames = F.interpolate(coarse, 64, mode="bilinear").contiguous(memory_format=torch.channels_last)
    return frames if example.is_floating_point() else (255 * frames).to(example.dtype)


def seconds(run: Callable[[], object]) -> float:
    """The least time of the processor in `ROUNDS` runs."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


@torch.no_grad()
def forward(model: nn.Module, frames: Tensor) -> None:
    model(frames)


@pytest.mark.parametrize("sparsity", [0.05, 0.5])
@pytest.mark.parametrize("network", MEASURED)
@pytest.mark.benchmark(timer=time.process_time)
def test_compensation(benchmark, network: str, sparsity: float) -> None:
    benchmark.group = f"compensation {network}"
    torch.manual_seed(0)
    model, example = NETWORKS[network]()
    model.eval().to(memory_format=torch.channels_last)
    frames = smooth_frames(example)
    small = copy.deepcopy(model)

    def fresh() -> tuple[tuple[nn.Module], dict[str, object]]:
        return (copy.deepcopy(model),), {}

    def step(target: nn.Module, compensate: str = "linear") -> None:
        options = {"compensate": compensate, "calibration": frames, "example_inputs": frames[:2]}
        assert gsprune.prune_step(target, sparsity, **options).changed

    step(small, "none")
    plain = seconds(lambda: step(*fresh()[0], "none"))
    forwards = seconds(lambda: forward(model, frames)) + seconds(lambda: forward(small, frames))
    benchmark.pedantic(step, setup=fresh, rounds=ROUNDS)
    ratio = (benchmark.stats.stats.min - plain) / forwards
    benchmark.extra_info.update(extra_info(network), sparsity=sparsity, forwards=forwards, ratio=ratio)
    assert ratio <= BAR or (network, sparsity) in UNMEASURED
