"""Prioritised replay at the paper's sizes, 128 environments and batches of 512, and at Atari's; small capacities."""

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


@pytest.fixture(scope="module", params=[4, 1], ids=["images", "whole stacks"])
def atari(request):
    """A replay of stacks of 4 images, stored image by image or as they are; episodes have 800 steps."""
    stack, num_envs, capacity = request.param, 4, 60_000
    buffer = PrioritizedReplay(ReplayOptions(capacity, n_step=1, alpha=0.0), num_envs, (4, 84, 84), stack=stack)
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(num_envs, 4, 84, 84), dtype=np.uint8)
    rest = np.zeros(num_envs, int), np.ones(num_envs, np.float32)
    for _ in range(capacity // num_envs + 5):
        frames = np.concatenate([frames[:, 1:], np.roll(frames[:, -1:], 1, axis=-1)], axis=1)
        ends = rng.random(num_envs) < 1 / 800
        frames[ends, :-1] = 0
        buffer.add(frames, *rest, ends)
    return buffer


@pytest.mark.benchmark(group="atari replay")
def test_sample_stacks(atari, benchmark):
    batch = benchmark(atari.sample, 32, np.random.default_rng(1))
    assert (batch.observations[:, 1:] == batch.next_observations[:, :-1]).all(axis=(1, 2, 3)).mean() > 0.9


@pytest.mark.benchmark(group="atari replay")
def test_add_stacks(atari, benchmark):
    first = np.zeros((4, 4, 84, 84), np.uint8)
    size = atari.size
    benchmark(atari.add, first, np.zeros(4, int), np.ones(4, np.float32), np.zeros(4, bool))
    assert atari.size == size


@pytest.mark.benchmark(group="sum tree")
@pytest.mark.parametrize("size", [2**13, 2**20])
def test_draws_from_a_sum_tree(benchmark, size):
    tree = SumTree(size)
    tree.set_range(0, np.ones(size))
    leaves = benchmark(tree.sample, BATCH, np.random.default_rng(2))
    assert (leaves * BATCH // size == np.arange(BATCH)).all()
