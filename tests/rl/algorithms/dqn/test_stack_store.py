"""Stacks of images come out of the replay as they went in, though every image is stored once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsprune.errors import CheckpointError, GspruneError, install_command
from gsprune.rl.algorithms.dqn.replay import PrioritizedReplay, ReplayBatch, ReplayOptions
from gsprune.rl.algorithms.dqn.stack_store import StackStore
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import describe, make_environments
from gsprune.rl.objects import object_name

SIDES = (1, 2)


@dataclass(frozen=True)
class Setting:
    """An environment that stacks, and the replay of its observations."""

    stack: int
    image_channels: int
    num_envs: int
    n_step: int
    live: int
    ends: float  # probability of an end in each step
    shades: int  # with few of them, images are often equal by accident
    black: bool  # pads with black images, not with copies
    next_step: bool  # begins the next episode one step after the end
    spare: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stack * self.image_channels, *SIDES)

    def replay(self, stack: int, path: Path | None = None) -> PrioritizedReplay:
        options = ReplayOptions(capacity=self.live * self.num_envs, n_step=self.n_step, alpha=0.7, beta=0.4)
        return PrioritizedReplay(options, self.num_envs, self.shape, path, 0 if path is None else self.spare, stack)


settings = st.builds(
    Setting,
    stack=st.integers(2, 5),
    image_channels=st.sampled_from([1, 3]),
    num_envs=st.integers(1, 3),
    n_step=st.integers(1, 3),
    live=st.integers(4, 12),
    ends=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    shades=st.sampled_from([1, 2, 256]),
    black=st.booleans(),
    next_step=st.booleans(),
    spare=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
)


def steps_of(setting: Setting) -> Iterator[tuple[np.ndarray, ...]]:
    """Observations, actions, rewards and ends of all environments, step after step, from within an episode on."""
    rng = np.random.default_rng(setting.seed)

    def image() -> np.ndarray:
        return rng.integers(setting.shades, size=(setting.image_channels, *SIDES), dtype=np.uint8)

    def first() -> list[np.ndarray]:
        newest = image()
        padding = np.zeros_like(newest) if setting.black else newest
        return [padding] * (setting.stack - 1) + [newest]

    stacks = [[image() for _ in range(setting.stack)] for _ in range(setting.num_envs)]
    waiting = np.zeros(setting.num_envs, bool)
    while True:
        ends = (rng.random(setting.num_envs) < setting.ends) & ~waiting
        observations = np.stack([np.concatenate(stack) for stack in stacks])
        actions = rng.integers(6, size=setting.num_envs)
        yield observations, actions, rng.random(setting.num_envs).astype(np.float32), ends
        resets = waiting if setting.next_step else ends
        stacks = [first() if reset else [*stack[1:], image()] for stack, reset in zip(stacks, resets, strict=True)]
        waiting = ends


def assert_equal(ours: ReplayBatch, theirs: ReplayBatch) -> None:
    for name, value in vars(theirs).items():
        assert np.array_equal(getattr(ours, name), value), name


def assert_same_samples(ours: PrioritizedReplay, theirs: PrioritizedReplay, seed: int) -> None:
    """The same draws give the same batches; the errors that come back go into the priorities of both."""
    assert ours.size == theirs.size
    if ours.size == 0:
        return
    rng, other_rng = np.random.default_rng(seed), np.random.default_rng(seed)
    for batch_size in (5, 32):
        batch = ours.sample(batch_size, rng)
        assert_equal(batch, theirs.sample(batch_size, other_rng))
        errors = rng.standard_normal(batch_size).astype(np.float32)
        other_rng.standard_normal(batch_size)
        ours.update(batch.leaves, errors)
        theirs.update(batch.leaves, errors)
    positions = rng.integers(ours.size, size=9)
    assert np.array_equal(ours.frames_at(positions), theirs.frames_at(positions))


@given(settings)
def test_batches_equal_those_of_a_replay_of_whole_stacks(setting: Setting) -> None:
    ours, whole = setting.replay(setting.stack), setting.replay(1)
    steps = steps_of(setting)
    for time in range(3 * setting.live + 2 * setting.stack):  # the ring is written thrice
        step = next(steps)
        ours.add(*step)
        whole.add(*step)
        if time % 3 == 0:
            assert_same_samples(ours, whole, time)
    expected = (setting.live + setting.stack - 1) * setting.num_envs * setting.image_channels * 2
    assert ours.frames.nbytes == expected


@given(settings, st.integers(1, 60), st.data())
def test_a_file_ahead_of_the_checkpoint_goes_on_as_if_it_had_never_stopped(
    setting: Setting, saved_at: int, data: st.DataObject
) -> None:
    ahead = data.draw(st.integers(0, setting.spare))
    steps = [step for step, _ in zip(steps_of(setting), range(saved_at + 30), strict=False)]
    with TemporaryDirectory() as folder:
        killed, whole = setting.replay(setting.stack, Path(folder, "ours")), setting.replay(1, Path(folder, "whole"))
        for step in steps[:saved_at]:
            killed.add(*step)
            whole.add(*step)
        state = killed.state_dict()
        for step in steps[saved_at : saved_at + ahead]:
            killed.add(*step)
        del killed
        resumed = setting.replay(setting.stack, Path(folder, "ours"))
        resumed.load_state_dict(state)
        assert_same_samples(resumed, whole, 0)
        for time, step in enumerate(steps[saved_at:]):
            resumed.add(*step)
            whole.add(*step)
            if time % 5 == 0:
                assert_same_samples(resumed, whole, time)


@given(settings, st.integers(0, 20))
def test_a_resumed_run_may_begin_new_episodes(setting: Setting, saved_at: int) -> None:
    ours, whole = setting.replay(setting.stack), setting.replay(1)
    steps = steps_of(setting)
    for _ in range(saved_at + 1):
        step = next(steps)
        ours.add(*step)
        whole.add(*step)
    ours.cut_episodes()
    whole.cut_episodes()
    image = np.full((setting.num_envs, setting.image_channels, *SIDES), 7, np.uint8)
    observations = np.concatenate([np.zeros_like(image)] * (setting.stack - 1) + [image], axis=1)
    for _ in range(setting.n_step):
        rest = (np.zeros(setting.num_envs, int), np.ones(setting.num_envs, np.float32))
        ours.add(observations, *rest, np.zeros(setting.num_envs, bool))
        whole.add(observations, *rest, np.zeros(setting.num_envs, bool))
    assert_same_samples(ours, whole, 1)
    batch = ours.sample(64, np.random.default_rng(0))
    discounts = batch.discounts[batch.leaves // setting.num_envs == saved_at % whole._rows]
    assert discounts.size
    assert not discounts.any()


class Noise(gymnasium.Env[Any, Any]):
    """Random pictures; an episode ends at random."""

    observation_space = gymnasium.spaces.Box(0, 255, (*SIDES, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        return self.picture(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        ends = bool(self.np_random.random() < 0.2)
        return self.picture(), 0.0, ends, False, {}

    def picture(self) -> np.ndarray:
        return self.np_random.integers(256, size=(*SIDES, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("env_id", "options"),
    [("ALE/Breakout-v5", ""), ("ALE/Qbert-v5", ""), (object_name(Noise), "stack=3,asynchronous=false")],
)
def test_stacks_of_the_providers_are_rebuilt(env_id: str, options: str) -> None:
    if env_id.startswith("ALE/"):
        pytest.importorskip("ale_py", reason=f"the extra 'atari' is not installed: {install_command('atari')}")
    request = EnvironmentRequest(env_id, num_envs=2, seed=1, options=options, num_threads=1)
    description, envs = describe(request), make_environments(request)
    store = StackStore(400, 2, description.observation_shape, description.stack)
    rng = np.random.default_rng(0)
    observations = [envs.reset()[0]]
    while len(observations) < 400:
        observations.append(envs.step(rng.integers(4, size=2))[0])
    for row, frames in enumerate(observations):
        store.write(row, frames)
    envs.close()
    rows, lanes = np.arange(400).repeat(2), np.tile([0, 1], 400)
    rebuilt = store.gather(rows, lanes, np.empty((800, *description.observation_shape), np.uint8))
    assert np.array_equal(rebuilt, np.concatenate(observations))
    assert (store._depths[-300:] == 1).any()  # episodes have begun


def observation(*shades: int) -> np.ndarray:
    return np.array(shades, np.uint8).reshape(1, len(shades), 1, 1)


@pytest.mark.parametrize("shades", [(1, 2, 4), (3, 3, 4), (0, 3, 4), (4, 3, 2)])
def test_an_observation_that_is_no_stack_is_an_error_and_nothing_is_stored(shades: tuple[int, ...]) -> None:
    replay = PrioritizedReplay(ReplayOptions(capacity=8, n_step=1), 1, (3, 1, 1), stack=3)
    rest: Any = (np.zeros(1, int), np.zeros(1, np.float32), np.zeros(1, bool))
    replay.add(observation(1, 2, 3), *rest)
    with pytest.raises(GspruneError, match=r"environment 0 is described as a stack of 3 images.* `stack` 1"):
        replay.add(observation(*shades), *rest)
    assert replay.size == 0
    replay.add(observation(2, 3, 4), *rest)
    batch = replay.sample(1, np.random.default_rng(0))
    assert batch.observations.ravel().tolist() == [1, 2, 3]
    assert batch.next_observations.ravel().tolist() == [2, 3, 4]


def test_channels_that_do_not_divide_into_images_are_refused() -> None:
    with pytest.raises(ValueError, match="`stack` must divide the 4 channels of an observation, got 3"):
        StackStore(5, 1, (4, 2, 2), 3)


def test_a_checkpoint_of_whole_stacks_is_refused(tmp_path: Path) -> None:
    def replay(name: str, stack: int) -> PrioritizedReplay:
        return PrioritizedReplay(ReplayOptions(capacity=8, n_step=1), 1, (3, 1, 1), tmp_path / name, 2, stack)

    replay("ours", 3)
    with pytest.raises(CheckpointError, match="images per stack"):
        replay("ours", 3).load_state_dict(replay("whole", 1).state_dict())


def test_an_atari_replay_takes_one_image_per_transition() -> None:
    store = StackStore(1000, 4, (4, 84, 84), 4)
    assert store.nbytes == 1003 * 4 * 84 * 84
    assert store.index_nbytes < 0.001 * store.nbytes
