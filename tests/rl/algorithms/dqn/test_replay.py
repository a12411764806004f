import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from gsprune.errors import CheckpointError, GspruneError
from gsprune.rl.algorithms.dqn.frame_store import FrameStore
from gsprune.rl.algorithms.dqn.replay import PrioritizedReplay, ReplayOptions

NUM_ENVS = 2
SHAPE = (2, 2, 1)
UNIFORM = ReplayOptions(capacity=20, n_step=3, gamma=0.5, alpha=0.0)


def frame(time, env):
    """A frame that says where it is from."""
    return np.full(SHAPE, (time * NUM_ENVS + env) % 256, dtype=np.uint8)


def add_steps(replay, times, ends=()):
    """Rewards equal the time, actions time mod 15; `ends` holds the (time, env) at which an episode ends."""
    for time in times:
        replay.add(
            np.stack([frame(time, env) for env in range(NUM_ENVS)]),
            np.full(NUM_ENVS, time % 15),
            np.full(NUM_ENVS, time, dtype=np.float32),
            np.array([(time, env) in ends for env in range(NUM_ENVS)]),
        )


def sampled(replay, draws=400):
    """All that can be sampled, by the first observation's value; a transition must always look the same."""
    batch = replay.sample(draws, np.random.default_rng(0))
    found = {}
    for i in range(draws):
        row = (
            batch.actions[i],
            batch.returns[i],
            batch.discounts[i],
            batch.next_observations[i].flat[0],
        )
        assert found.setdefault(int(batch.observations[i].flat[0]), row) == row
    return found


def test_a_window_holds_the_nth_observation_and_gamma_to_the_n():
    replay = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE)
    add_steps(replay, range(4))
    assert replay.size == 2
    returns = 0 + 0.5 * 1 + 0.25 * 2
    assert sampled(replay) == {0: (0, returns, 0.125, 6), 1: (0, returns, 0.125, 7)}


@pytest.mark.parametrize("steps", [9, 10, 11, 27])
def test_frames_are_numbered_from_the_oldest_that_can_be_sampled(steps):
    replay = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE)
    add_steps(replay, range(steps))
    numbers = list(range(2 * max(0, steps - 10), 2 * (steps - 3)))  # of the frames that can be sampled
    assert set(numbers) == set(sampled(replay))
    assert replay.frames_at(np.arange(replay.size))[:, 0, 0, 0].tolist() == numbers
    assert replay.frames_at(np.array([1, 3]))[:, 0, 0, 0].tolist() == [numbers[1], numbers[3]]
    assert replay.frames_at(np.arange(0)).shape == (0, *SHAPE)


def test_nothing_can_be_sampled_before_the_nth_observation_is_there():
    replay = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE)
    add_steps(replay, range(3))
    assert replay.size == 0
    with pytest.raises(ValueError, match="nothing to sample"):
        replay.sample(1, np.random.default_rng(0))


def test_the_last_steps_of_an_episode_are_sampled_with_shorter_returns():
    replay = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE)
    add_steps(replay, range(7), ends={(3, 0)})
    found = sampled(replay)
    assert set(found) == set(range(8))
    env_0 = {time: found[time * NUM_ENVS][1:3] for time in range(4)}
    assert env_0 == {
        0: (0 + 0.5 * 1 + 0.25 * 2, 0.125),
        1: (1 + 0.5 * 2 + 0.25 * 3, 0.0),
        2: (2 + 0.5 * 3, 0.0),
        3: (3.0, 0.0),
    }
    assert found[2 * NUM_ENVS + 1][1:3] == (2 + 0.5 * 3 + 0.25 * 4, 0.125)


@pytest.mark.parametrize("spare", [None, 2, 7])
def test_only_the_newest_capacity_transitions_are_sampled_whatever_the_ring_contains(spare, tmp_path):
    path = None if spare is None else tmp_path / "frames.bin"
    replay = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE, path=path, spare_steps=spare or 0)
    for end in (10, 11, 23, 40):
        add_steps(replay, range(replay._steps, end))
        assert replay.size == (10 - 3) * NUM_ENVS
        times = {value // NUM_ENVS for value in sampled(replay)}
        assert times == set(range(end - 10, end - 3))


def test_frames_are_stored_once():
    replay = PrioritizedReplay(ReplayOptions(capacity=1000), 4, (64, 64, 3))
    assert replay.frames.nbytes == 1000 * 64 * 64 * 3
    assert replay.index_nbytes < 0.01 * replay.frames.nbytes


def test_new_transitions_get_the_highest_priority_seen():
    replay = PrioritizedReplay(ReplayOptions(capacity=40, alpha=1.0, eps=1e-6), NUM_ENVS, SHAPE)
    add_steps(replay, range(4))
    replay.update(np.array([0, 1]), np.array([-5.0, 0.5], dtype=np.float32))
    add_steps(replay, range(4, 5))
    assert replay._tree.leaves[:4] == pytest.approx([5.0, 0.5, 5.0, 5.0], rel=1e-4)


def test_an_update_does_not_revive_a_transition_that_has_left_the_buffer(tmp_path):
    replay = in_file(tmp_path / "frames.bin")
    add_steps(replay, range(10))
    leaves = np.array([0, 1, 4])
    add_steps(replay, range(10, 11))
    replay.update(leaves, np.ones(3, dtype=np.float32))
    assert (replay._tree.leaves[:2] == 0.0).all()
    assert replay._tree.leaves[4] == 1.0


def test_prioritised_draws_and_weights_agree_with_the_priorities():
    replay = PrioritizedReplay(ReplayOptions(capacity=40, alpha=1.0, beta=1.0, n_step=1), NUM_ENVS, SHAPE)
    add_steps(replay, range(11))
    errors = np.arange(1, 21, dtype=np.float32)
    replay.update(np.arange(20), errors)
    rng = np.random.default_rng(1)
    counts = np.zeros(20)
    for _ in range(300):
        batch = replay.sample(64, rng)
        counts += np.bincount(batch.leaves, minlength=20)
        # beta = 1: weight times priority is the same for the whole batch, and the weights' mean is 1.
        products = batch.weights * errors[batch.leaves]
        assert products == pytest.approx(np.full(64, products[0]), rel=1e-4)
        assert batch.weights.mean() == pytest.approx(1.0, rel=1e-5)
    expected = errors / errors.sum() * counts.sum()
    # The 99.9 % quantile for 19 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


def in_file(path):
    return PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE, path=path, spare_steps=6)


def test_a_file_ahead_of_the_checkpoint_gives_the_checkpoints_batches(tmp_path):
    replay = in_file(tmp_path / "frames.bin")
    add_steps(replay, range(25), ends={(20, 1)})
    state = replay.state_dict()
    expected = sampled(replay)
    add_steps(replay, range(25, 31))
    del replay
    restored = in_file(tmp_path / "frames.bin")
    restored.load_state_dict(state)
    assert sampled(restored) == expected
    # ... and it goes on as if nothing had happened.
    add_steps(restored, range(25, 26))
    assert {value // NUM_ENVS for value in sampled(restored)} == set(range(16, 23))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_older_of_two_kept_checkpoints_finds_its_frames_at_any_moment(tmp_path, stride):
    replay = in_file(tmp_path / "frames.bin")
    add_steps(replay, range(20))
    kept = [(replay.state_dict(), sampled(replay))] * 2
    replay.checkpointed()
    checkpoints = 0
    for time in range(20, 20 + 12 * stride, stride):
        if replay.needs_checkpoint(stride):
            kept = [kept[1], (replay.state_dict(), sampled(replay))]
            replay.checkpointed()
            checkpoints += 1
        add_steps(replay, range(time, time + stride))
        reopened = in_file(tmp_path / "frames.bin")
        for state, expected in kept:
            reopened.load_state_dict(state)
            assert sampled(reopened) == expected
    # Half of the six spare rows between two of them, no more.
    assert checkpoints == (12 * stride - 1) // (3 // stride * stride)


def test_a_replay_in_memory_never_asks_for_a_checkpoint():
    replay = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE)
    add_steps(replay, range(50))
    assert not replay.needs_checkpoint(50)


# Stores 25 steps, keeps a checkpoint of them, stores three more and waits for its end.
WRITER = """
import pickle, sys, time
from pathlib import Path
import numpy as np
from gsprune.rl.algorithms.dqn.replay import PrioritizedReplay, ReplayOptions

folder = Path(sys.argv[1])
options = ReplayOptions(capacity=20, n_step=3, gamma=0.5, alpha=0.0)
replay = PrioritizedReplay(options, 2, (2, 2, 1), path=folder / "frames.bin", spare_steps=6)
step = 0
while step < 28:
    frames = (step * 2 + np.arange(2)).astype(np.uint8).reshape(2, 1, 1, 1).repeat(2, 1).repeat(2, 2)
    replay.add(frames, np.full(2, step % 15), np.full(2, step, dtype=np.float32), np.zeros(2, dtype=bool))
    step += 1
    if step == 25:
        (folder / "state.pkl").write_bytes(pickle.dumps(replay.state_dict()))
print(step, flush=True)
time.sleep(60)
"""


def test_the_content_survives_kill_9_with_the_file_ahead_of_the_checkpoint(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"28\n"
        process.kill()
    state = pickle.loads((tmp_path / "state.pkl").read_bytes())
    uninterrupted = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE)
    add_steps(uninterrupted, range(25))
    restored = in_file(tmp_path / "frames.bin")
    restored.load_state_dict(state)
    assert sampled(restored) == sampled(uninterrupted)


def test_a_checkpoint_of_another_layout_is_refused(tmp_path):
    state = {**in_file(tmp_path / "frames.bin").state_dict(), "layout": [1, 2, 3]}
    replay = in_file(tmp_path / "frames.bin")
    with pytest.raises(CheckpointError, match="resume with the options of the run that wrote it"):
        replay.load_state_dict(state)


def test_a_file_of_another_size_is_refused_and_kept(tmp_path):
    path = tmp_path / "frames.bin"
    path.write_bytes(b"abc")
    with pytest.raises(CheckpointError, match="has 3 bytes, this configuration needs 128"):
        in_file(path)
    assert path.read_bytes() == b"abc"


def test_a_full_disk_is_an_error_at_the_start_and_leaves_no_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(GspruneError, match=r"no room for the replay file .*No space left.*lower the replay capacity"):
        FrameStore(10, 1, SHAPE, tmp_path / "frames.bin")
    assert not (tmp_path / "frames.bin").exists()


def test_bad_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`capacity` must be more than num_envs \* n_step = 6, got 6"):
        PrioritizedReplay(ReplayOptions(capacity=6), NUM_ENVS, SHAPE)
    with pytest.raises(ValueError, match="`spare_steps` must be at least 2"):
        PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE, path=tmp_path / "frames.bin")


@pytest.mark.parametrize("name", [None, "new.bin"])
def test_a_checkpoint_without_its_frames_is_refused(tmp_path, name):
    replay = PrioritizedReplay(UNIFORM, NUM_ENVS, SHAPE, None if name is None else tmp_path / name, spare_steps=6)
    assert not replay.frames.is_reopened
    with pytest.raises(ValueError, match="the frames of this checkpoint are gone"):
        replay.load_state_dict(replay.state_dict())
