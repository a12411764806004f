"""Prioritised replay at the paper's sizes: 128 environments, batches of 512, a tenth of the capacity."""

import numpy as np
import pytest

from gsprune.rl.algorithms.dqn.replay import PrioritizedReplay, ReplayOptions
from gsprune.rl.algorithms.dqn.sum_tree import SumTree

NUM_ENVS, BATCH, CAPACITY = 128, 512, 100_000


@pytest.fixture(scope="module")
def replay():
    buffer = PrioritizedReplay(ReplayOptions(capacity=CAPACITY), NUM_ENVS, (64, 64, 3))
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(NUM_ENVS, 64, 64, 3), dtype=np.uint8)
    for _ in range(CAPACITY // NUM_ENVS + 5):
        buffer.add(frames, np.zeros(NUM_ENVS, int), np.ones(NUM_ENVS, np.float32), np.zeros(NUM_ENVS, bool))
    return buffer, frames


@pytest.mark.benchmark(group="replay")
def test_add(replay, benchmark):
    buffer, frames = replay
    size = buffer.size
    rewards, ended = np.ones(NUM_ENVS, np.float32), np.zeros(NUM_ENVS, bool)
    benchmark(buffer.add, frames, np.zeros(NUM_ENVS, int), rewards, ended)
    assert buffer.size == size


@pytest.mark.benchmark(group="replay")
def test_sample(replay, benchmark):
    buffer, _ = replay
    batch = benchmark(buffer.sample, BATCH, np.random.default_rng(1))
    assert batch.returns == pytest.approx(np.full(BATCH, 1 + 0.99 + 0.99**2))


@pytest.mark.benchmark(group="replay")
def test_update(replay, benchmark):
    buffer, _ = replay
    leaves = buffer.sample(BATCH, np.random.default_rng(1)).leaves
    benchmark(buffer.update, leaves, np.full(BATCH, 4.0, np.float32))
    assert buffer._tree.leaves[leaves] == pytest.approx(np.full(BATCH, 2.0), rel=1e-5)


@pytest.mark.benchmark(group="sum tree")
@pytest.mark.parametrize("size", [2**13, 2**20])
def test_draws_from_a_sum_tree(benchmark, size):
    tree = SumTree(size)
    tree.set_range(0, np.ones(size))
    leaves = benchmark(tree.sample, BATCH, np.random.default_rng(2))
    assert (leaves * BATCH // size == np.arange(BATCH)).all()
