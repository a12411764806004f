"""The replay's frames before a time limit: they stand in for the n-th observation, and leave with their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gsprune.rl.algorithms.dqn.replay import PrioritizedReplay, ReplayOptions
from gsprune.rl.training.truncation import Truncated

SHAPE = (2, 2, 1)
LIVE = 10
OPTIONS = ReplayOptions(capacity=2 * LIVE, n_step=3, gamma=0.5, alpha=0.0)
LAST = 200  # grey level of a last frame, plus the time; other frames have the time alone


def add_steps(replay: PrioritizedReplay, times: range, truncated: set[tuple[int, int]]) -> None:
    for time in times:
        envs = np.array([env for env in range(2) if (time, env) in truncated], np.int64)
        frames = np.full((len(envs), *SHAPE), LAST + time, np.uint8)
        replay.add(
            np.full((2, *SHAPE), time, np.uint8),
            np.zeros(2, np.int64),
            np.ones(2, np.float32),
            np.isin(np.arange(2), envs),
            Truncated(envs, frames) if len(envs) else None,
        )


def bootstraps(replay: PrioritizedReplay, env: int) -> dict[int, tuple[int, float]]:
    """Time of the first observation -> (next observation, discount)."""
    batch = replay.sample(500, np.random.default_rng(0))
    found = {}
    for row in np.flatnonzero(batch.leaves % 2 == env):
        value = (int(batch.next_observations[row].flat[0]), float(batch.discounts[row]))
        assert found.setdefault(int(batch.observations[row].flat[0]), value) == value
    return found


def test_a_window_that_a_time_limit_cuts_goes_on_with_the_last_frame() -> None:
    replay = PrioritizedReplay(OPTIONS, 2, SHAPE)
    add_steps(replay, range(9), {(4, 1)})
    plain = {time: (time + 3, 0.125) for time in range(6)}
    assert bootstraps(replay, 0) == plain
    assert bootstraps(replay, 1) == {**plain, 2: (204, 0.125), 3: (204, 0.25), 4: (204, 0.5)}


def test_a_last_frame_leaves_with_its_row_and_a_new_one_may_take_its_place() -> None:
    replay = PrioritizedReplay(OPTIONS, 2, SHAPE)
    add_steps(replay, range(4), {(2, 0), (2, 1)})
    empty = PrioritizedReplay(OPTIONS, 2, SHAPE).index_nbytes
    assert replay.index_nbytes == empty + 2 * 4
    add_steps(replay, range(4, 20), {(2 + LIVE, 1)})
    assert replay.index_nbytes == empty + 4
    assert bootstraps(replay, 0)[12] == (15, 0.125)
    assert bootstraps(replay, 1)[12] == (212, 0.5)


def test_a_checkpoint_holds_the_last_frames(tmp_path: Path) -> None:
    replay = PrioritizedReplay(OPTIONS, 2, SHAPE, tmp_path / "frames.bin", spare_steps=6)
    add_steps(replay, range(15), {(11, 0), (9, 1)})
    state = replay.state_dict()
    expected = [bootstraps(replay, env) for env in range(2)]
    add_steps(replay, range(15, 18), {(16, 0)})  # the file is ahead of the checkpoint
    restored = PrioritizedReplay(OPTIONS, 2, SHAPE, tmp_path / "frames.bin", spare_steps=6)
    restored.load_state_dict(state)
    assert [bootstraps(restored, env) for env in range(2)] == expected


def test_in_an_older_checkpoint_truncated_episodes_have_ended(tmp_path: Path) -> None:
    replay = PrioritizedReplay(OPTIONS, 2, SHAPE, tmp_path / "frames.bin", spare_steps=6)
    add_steps(replay, range(9), {(4, 1)})
    state = {name: value for name, value in replay.state_dict().items() if name not in ("truncated", "last_frames")}
    restored = PrioritizedReplay(OPTIONS, 2, SHAPE, tmp_path / "frames.bin", spare_steps=6)
    restored.load_state_dict(state)
    assert {time for time, (_, discount) in bootstraps(restored, 1).items() if discount == 0} == {2, 3, 4}
