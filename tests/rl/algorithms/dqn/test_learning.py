"""DQN on a game whose best policy is known: it must find it."""

import dataclasses

import gymnasium
import numpy as np
import torch

import gsprune.rl.training.trainer
from gsprune.rl.algorithms.dqn.config import DQNConfig
from gsprune.rl.algorithms.dqn.trainer import DQNTrainer
from gsprune.rl.envs.procgen_state import EnvState
from gsprune.rl.training.run_folder import RunFolder

CONFIG = DQNConfig(
    encoder="nature",
    width=1,
    total_timesteps=3_200,
    num_envs=8,
    batch_size=32,
    replay_capacity=3_200,
    replay_storage="memory",
    learning_starts=400,
    target_interval=200,
    exploration_fraction=0.5,
    learning_rate=1e-3,
    gamma=0.5,
    prune_interval=20,
    sparsity=0.5,
    log_interval=25,
    eval_episodes=0,
    eval_interval_episodes=0,
    checkpoint_minutes=1000.0,
)
NUM_COLOURS = 3


class DelayedColours:
    """The colour of a frame says which of three actions is right; the reward comes one step later.

    So the value of an action shows in a two-step return only, and one step's observation is never another's.
    """

    def __init__(self, request):
        self.num_envs = request.num_envs
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8)
        self.rng = np.random.default_rng(0)
        self.due = np.zeros(self.num_envs, np.float32)
        self.colours = np.zeros(self.num_envs, np.int64)

    def reset(self):
        return self.draw(), {}

    def step(self, actions):
        rewards = self.due
        self.due = (actions % NUM_COLOURS == self.colours).astype(np.float32)
        ended = self.rng.random(self.num_envs) < 0.05
        rewards = rewards + self.due * ended  # an end pays at once what is due
        self.due[ended] = 0
        return self.draw(), rewards, ended, np.zeros_like(ended), {}

    def get_state(self):
        return EnvState({}, {})

    def close(self):
        pass

    def draw(self):
        self.colours = self.rng.integers(NUM_COLOURS, size=self.num_envs)
        frames = np.zeros((self.num_envs, 64, 64, 3), np.uint8)
        frames[np.arange(self.num_envs), :, :, self.colours] = 255
        return frames.transpose(0, 3, 1, 2)


def test_the_agent_finds_the_best_policy_of_a_delayed_bandit_while_it_shrinks(tmp_path, monkeypatch):
    monkeypatch.setattr(gsprune.rl.training.trainer, "make_environments", DelayedColours)
    run = RunFolder.create(tmp_path / "run", "dqn", dataclasses.asdict(CONFIG))
    trainer = DQNTrainer(CONFIG, run, say=lambda line: None)
    try:
        trainer.train()
        right = []
        for _ in range(20):
            greedy = trainer.agent(torch.from_numpy(trainer.envs.draw())).argmax(1).numpy()
            right.append((greedy % NUM_COLOURS == trainer.envs.colours).mean())
        assert np.mean(right) > 0.95
        assert trainer.size.widths["encoder.linear"] == 128
    finally:
        trainer.close()
        run.close()
