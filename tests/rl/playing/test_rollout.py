from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from written_runs import write_run

from gsprune.rl.playing.rollout import Moment, episode_moments, side_by_side
from gsprune.rl.trained import load_agent

pytest.importorskip("procgen")


def moment(episode_return: float) -> Moment:
    return Moment(np.zeros((3, 2, 2), np.uint8), 1, episode_return)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_a_seed_plays_the_same_frames_and_another_does_not(tmp_path: Path, algorithm: str) -> None:
    agent = load_agent(write_run(tmp_path / "run", algorithm))
    first, second, other = (list(islice(episode_moments(agent, "test", seed), 20)) for seed in (3, 3, 4))
    assert all(np.array_equal(one.frame, two.frame) for one, two in zip(first, second, strict=True))
    assert not np.array_equal(first[0].frame, other[0].frame)


def test_every_episode_ends_with_its_whole_return_and_the_next_begins_at_zero(tmp_path: Path) -> None:
    agent = load_agent(write_run(tmp_path / "run"))
    moments = list(episode_moments(agent, "train", 0, episodes=2))
    ends = [index for index, each in enumerate(moments) if each.is_end]
    assert [moments[index].episode for index in ends] == [1, 2]
    assert ends[-1] == len(moments) - 1
    after = moments[ends[0] + 1]
    assert (after.episode, after.episode_return) == (2, 0.0)
    assert np.array_equal(moments[ends[0]].frame, moments[ends[0] - 1].frame)


def test_an_agent_that_ends_earlier_keeps_its_last_moment() -> None:
    long, short = iter([moment(0), moment(1), moment(2)]), iter([moment(5), moment(6)])
    together = [tuple(each.episode_return for each in pair) for pair in side_by_side([long, short])]
    assert together[:3] == [(0, 5), (1, 6), (2, 6)]
    assert set(together[3:]) <= {(2, 6)}
