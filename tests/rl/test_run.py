"""Training from Python and from the command line on environments and networks that are not of this package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from own_provider import OwnProvider
from torch import nn

import gsprune.rl
from gsprune.cli import main
from gsprune.networks import ActorCritic, Encoder
from gsprune.report.plot_run import plot_run
from gsprune.rl.algorithms import registry as algorithms
from gsprune.rl.algorithms.dqn.config import DQNConfig
from gsprune.rl.algorithms.dqn.trainer import DQNTrainer
from gsprune.rl.algorithms.ppo.algorithm import PPO
from gsprune.rl.algorithms.ppo.config import PPOConfig
from gsprune.rl.algorithms.ppo.returns import RewardNormalizer
from gsprune.rl.algorithms.ppo.trainer import PPOTrainer
from gsprune.rl.envs import registry as environments
from gsprune.rl.envs.gymnasium import GymnasiumGames
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.envs.registry import describe
from gsprune.rl.evaluation.protocol import ProtocolConfig, evaluate_tracks, tracks_of
from gsprune.rl.objects import object_name
from gsprune.rl.training import trainer as trainer_module
from gsprune.rl.training.metrics import read_metrics
from gsprune.rl.training.run_folder import RunFolder

EXAMPLE = Path(__file__).parents[2] / "examples" / "play_onnx.py"
OWN = '''
import gymnasium
import numpy as np
from torch import nn


class Lights(gymnasium.Env):
    """A picture of one grey level; the reward is highest where the action matches it."""

    def __init__(self, actions="discrete"):
        self.observation_space = gymnasium.spaces.Box(0, 255, (36, 40, 3), np.uint8)
        self.action_space = {
            "discrete": gymnasium.spaces.Discrete(3),
            "several": gymnasium.spaces.MultiDiscrete([2, 3]),
            "box": gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        }[actions]
        self.count = 0

    def picture(self):
        return np.full((36, 40, 3), self.np_random.integers(256), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.picture(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.count += 1
        return self.picture(), float(np.sum(action)), False, self.count == 12, {}


class Encoder(nn.Module):
    def __init__(self, observation_shape):
        super().__init__()
        self.conv = nn.Conv2d(observation_shape[0], 8, 4, stride=4)
        self.linear = nn.Linear(8 * (observation_shape[1] // 4) * (observation_shape[2] // 4), 32)
        self.num_features = 32

    def forward(self, frames):
        return self.linear(self.conv(frames / 255).relu().flatten(1)).relu()


class Bare(nn.Module):
    """An encoder without channels to prune."""

    def __init__(self, observation_shape):
        super().__init__()
        self.num_features = observation_shape[0] * observation_shape[1] * observation_shape[2]

    def forward(self, frames):
        return (frames / 255).flatten(1)


def not_a_network(environment):
    return 3


def not_an_encoder(observation_shape):
    return nn.Linear(3, 3)


class Bytes(Encoder):
    def forward(self, frames):
        return self.linear(self.conv(frames).flatten(1))


class Pictures(Encoder):
    def forward(self, frames):
        return self.conv(frames / 255)


class Named(Encoder):
    def forward(self, frames):
        return {"features": super().forward(frames)}


class Deep(Encoder):
    def __init__(self, observation_shape, depth):
        super().__init__(observation_shape)


made = Encoder((3, 36, 40))


class Whole(nn.Module):
    """A network with outputs of the given sizes."""

    def __init__(self, observation_shape, *sizes):
        super().__init__()
        self.encoder = Encoder(observation_shape)
        self.outputs = nn.ModuleList([nn.Linear(32, size) for size in sizes])

    def forward(self, frames):
        features = self.encoder(frames)
        return tuple(output(features) for output in self.outputs)


def whole(environment):
    return Whole(environment.observation_shape, 3, 1)


class Headless(Whole):
    def __init__(self, environment):
        super().__init__(environment.observation_shape, 3, 1)

    def forward(self, frames):
        logits, values = super().forward(frames)
        return logits, values[:, 0]


class Misnamed(Headless):
    heads = ("actor", "critic")


class Values(Whole):
    def __init__(self, environment):
        super().__init__(environment.observation_shape, 2)

    def forward(self, frames):
        return super().forward(frames)[0]


class Means(Whole):
    def __init__(self, environment):
        super().__init__(environment.observation_shape, 2, 1)

    def forward(self, frames):
        means, values = super().forward(frames)
        return means, values[:, 0]
'''

TINY: dict[str, Any] = {
    "env_options": "asynchronous=false",
    "num_envs": 2,
    "torch_threads": 1,
    "eval_episodes": 2,
    "eval_num_envs": 2,
    "eval_interval_episodes": 0,
    "checkpoint_minutes": 0,
}
PPO_TINY = PPOConfig(**TINY, num_steps=16, num_minibatches=2, update_epochs=1, total_timesteps=160)
DQN_TINY = DQNConfig(
    **TINY, batch_size=8, replay_capacity=200, replay_spare=80, learning_starts=32, log_interval=16, prune_interval=4,
    total_timesteps=160,
)  # fmt: skip


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "own_lights.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own_lights

    yield own_lights
    del sys.modules["own_lights"]


def quiet(line: str) -> None:
    del line


@pytest.mark.parametrize("actions", ["discrete", "several", "box"])
def test_an_environment_and_an_encoder_of_ones_own_train_prune_and_evaluate(
    own: Any, tmp_path: Path, actions: str
) -> None:
    agent = gsprune.rl.train(
        replace(PPO_TINY, env_options=f"asynchronous=false,actions={actions}"),
        tmp_path / "run", envs=own.Lights, encoder=own.Encoder, say=quiet,
    )  # fmt: skip
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["width/encoder.conv"] == 2  # of 8, at sparsity 0.8 rounded up
    assert rows[-1]["charts/episodic_length"] == 12
    assert np.isfinite(rows[-1]["losses/policy_loss"])
    protocol = ProtocolConfig(agent.config, episodes=2, num_envs=2)
    results = evaluate_tracks(agent.policy, protocol, tracks_of(agent.environment))
    assert list(results) == ["test"]  # training and test levels are the same
    assert results["test"].mean_length == 12
    assert results["test"].normalised is None


@pytest.mark.parametrize("stack", [1, 3])
def test_a_resumed_run_begins_new_episodes_says_so_and_keeps_all_else(own: Any, tmp_path: Path, stack: int) -> None:
    config = replace(DQN_TINY, env_id="own_lights:Lights", encoder="own_lights:Encoder")
    config = replace(config, env_options=f"{config.env_options},stack={stack}")
    run = RunFolder.create(tmp_path / "run", "dqn", vars(config))
    trainer = algorithms.algorithm_of("dqn").trainer(config, run, say=quiet)
    trainer.train(should_stop=lambda: trainer.iteration == 3)
    weights = {name: value.clone() for name, value in trainer.agent.state_dict().items()}
    updates = trainer.updates
    trainer.close()
    run.close()

    lines: list[str] = []
    run = RunFolder.open(tmp_path / "run")
    again = algorithms.algorithm_of("dqn").trainer(config, run, resume=True, say=lines.append)
    assert any("cannot save its state: new episodes begin" in line for line in lines)
    assert any(f"stacks of {stack} images" in line for line in lines) == (stack > 1)
    assert (again.iteration, again.updates) == (3, updates)
    assert again.replay._ended[again.replay._steps - 1].all()
    assert all(torch.equal(weights[name], value) for name, value in again.agent.state_dict().items())
    assert again.train()
    again.close()
    run.close()
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [32, 64, 96, 128, 160]


def test_storing_the_images_of_stacks_once_changes_no_metric(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(DQN_TINY, env_id="own_lights:Lights", encoder="own_lights:Encoder")
    config = replace(config, env_options=f"{config.env_options},stack=3", eval_episodes=0, eval_num_envs=64)
    lines: dict[int, list[str]] = {1: [], 3: []}
    rows = []
    for stack, said in lines.items():
        monkeypatch.setattr(trainer_module, "describe", lambda request, of=stack: replace(describe(request), stack=of))
        gsprune.rl.train(config, tmp_path / f"stack-{stack}", say=said.append)
        logged = read_metrics(tmp_path / f"stack-{stack}")
        rows.append([{name: row[name] for name in row if not name.startswith("time/")} for row in logged])
    assert rows[0] == rows[1]
    # 100 steps and 40 spare ones of 2 environments, 9 channels of 36 x 40 pixels: a third, and the first two images.
    whole, once = (140 * 2 * 9 * 36 * 40, 142 * 2 * 3 * 36 * 40)
    assert f"the replay takes {whole / 1e9:.2f} GB of disk" in lines[1][0]
    assert f"the replay takes {once / 1e9:.2f} GB of disk" in lines[3][0]


def test_the_command_line_takes_environment_and_encoder_from_a_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lights_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["--env-id", "lights_here:Lights", "--encoder", "lights_here:Encoder", "--run-dir", str(tmp_path / "run")]
    sizes = ["--num-envs", "2", "--num-steps", "16", "--num-minibatches", "2", "--total-timesteps", "96"]
    rest = ["--eval-episodes", "2", "--eval-num-envs", "2", "--eval-interval-episodes", "0", "--torch-threads", "1"]
    assert main(["train", "ppo", *words, *sizes, *rest, "--env-options", "asynchronous=false"]) == 0
    assert main(["eval", str(tmp_path / "run"), "--episodes", "2", "--num-envs", "2"]) == 0
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["tracks"]["test"]["normalised"] is None
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert "conv" in capsys.readouterr().out


def test_the_command_line_trains_an_algorithm_of_another_package(
    own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_algorithm.py").write_text(
        "from dataclasses import replace\n"
        "from gsprune.rl.algorithms.ppo.algorithm import PPO\n"
        "class Lazy(PPO.trainer):\n"
        "    algorithm = 'lazy'\n"
        "    def _update(self):\n"
        "        return {}\n"
        "LAZY = replace(PPO, name='lazy', trainer=Lazy, presets={})\n"
    )
    words = ["--num-envs=2", "--num-steps=16", "--num-minibatches=2", "--total-timesteps=96", "--eval-episodes=2"]
    words += ["--eval-num-envs=2", "--eval-interval-episodes=0", "--env-options=asynchronous=false"]
    words += ["--encoder=own_lights:Encoder"]
    run = tmp_path / "run"
    command = ["train", "own_algorithm:LAZY"]
    assert main([*command, "--env-id", "own_lights:Lights", *words, "--run-dir", str(run)]) == 0
    assert "losses/policy_loss" not in read_metrics(run)[-1]
    assert main([*command, "--resume", str(run)]) == 0
    assert "the run is finished" in capsys.readouterr().out
    assert main(["eval", str(run), "--episodes", "2", "--num-envs", "2"]) == 0
    study = ["--games", "own_lights:Lights", "--seeds", "1", "--algorithm", "own_algorithm:LAZY", "--dry-run"]
    study += ["--out", str(tmp_path / "out"), f"--options={' '.join(words)}"]
    capsys.readouterr()
    assert main(["sweep", *study, "--methods", "dense"]) == 0
    assert "train own_algorithm:LAZY --run-dir" in capsys.readouterr().out
    assert main(["sweep", *study, "--methods", "odd=--width 0"]) == 2
    assert "method 'odd': `width` must be at least 1" in capsys.readouterr().err
    for name, message in (("LAZI", "has no 'LAZI'"), ("Lazy", "must be a gsprune Algorithm")):
        assert main(["train", f"own_algorithm:{name}"]) == 2
        assert message in capsys.readouterr().err


def test_results_without_a_test_split_are_named_without_words_of_procgen(
    own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(PPO_TINY, eval_interval_episodes=2, eval_points=2)
    gsprune.rl.train(config, tmp_path / "run", envs=own.Lights, encoder=own.Encoder, say=quiet)
    summary = (tmp_path / "run" / "summary.md").read_text()
    assert "| return | " in summary
    rows = read_metrics(tmp_path / "run")
    assert [key for row in rows for key in row if key.startswith("eval/")] == ["eval/test_return"]
    assert main(["eval", str(tmp_path / "run"), "--episodes", "2", "--num-envs", "2", "--noise"]) == 0
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report")]) == 0
    printed = capsys.readouterr().out
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| method | runs | steps | return | sparsity |" in report
    assert "as they are" in printed
    for text in (summary, printed, report):
        for words in ("training levels", "full distribution", "easy", "test return", "train return"):
            assert words not in text


def test_a_network_of_ones_own_trains_and_shrinks(own: Any, tmp_path: Path) -> None:
    class Whole(nn.Module):
        def __init__(self, environment: EnvironmentDescription) -> None:
            super().__init__()
            self.body = own.Encoder(environment.observation_shape)
            self.policy = nn.Linear(32, int(environment.action_space.n))
            self.value = nn.Linear(32, 1)

        def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.body(frames)
            return self.policy(features), self.value(features).squeeze(-1)

    agent = gsprune.rl.train(PPO_TINY, tmp_path / "run", envs=own.Lights, network=Whole, say=quiet)
    assert agent.network.body.conv.out_channels == 2


def test_a_network_with_nothing_to_prune_is_trained_and_plotted(own: Any, tmp_path: Path) -> None:
    with pytest.warns(gsprune.PruneWarning, match="nothing of ActorCritic can be removed"):
        gsprune.rl.train(PPO_TINY, tmp_path / "run", envs=own.Lights, encoder=own.Bare, say=quiet)
    assert read_metrics(tmp_path / "run")[-1]["pruning/channel_sparsity"] == 0
    assert plot_run(tmp_path / "run", {}).is_file()


@pytest.mark.parametrize(
    ("config", "options", "error", "message"),
    [
        (DQN_TINY, {"env_options": "actions=box"}, ValueError, "DQN needs a Discrete action space.*train by PPO"),
        (PPO_TINY, {"encoder": "own_lights:not_an_encoder"}, TypeError, "`num_features`"),
        (PPO_TINY, {"encoder": "own_lights:Encodr"}, ValueError, "has no 'Encodr'"),
        (PPO_TINY, {"encoder": "impola"}, ValueError, "did you mean 'impoola'"),
        (PPO_TINY, {"network": "own_lights:not_a_network"}, TypeError, "torch.nn.Module"),
        (PPO_TINY, {"encoder": "own_lights:Bytes"}, ValueError, r"fails on \(2, 3, .*own_lights.py, line \d+, in forw"),
        (PPO_TINY, {"encoder": "own_lights:Pictures"}, ValueError, r"\(B, num_features\), \(2, 32\) .* got \(2, 8, 9,"),
        (PPO_TINY, {"encoder": "own_lights:Named"}, ValueError, "must return features .* got dict"),
        (PPO_TINY, {"encoder": "own_lights:Deep"}, TypeError, r"callable\(observation_shape\).*argument: 'depth'"),
        (PPO_TINY, {"encoder": "own_lights:made"}, TypeError, "got a network; name its class"),
        (PPO_TINY, {"network": "own_lights:whole"}, ValueError, r"\(B, 3\) and \(B,\) .* returns \(2, 3\), \(2, 1\)"),
        (PPO_TINY, {"network": "own_lights:Values"}, ValueError, r"Values returns \(2, 2\) for 2 frames"),
        (DQN_TINY, {"network": "own_lights:Values"}, ValueError, r"\(B, 3\) .* Values returns \(2, 2\) for 2 frames"),
        (DQN_TINY, {"network": "own_lights:whole"}, ValueError, r"\(B, 3\) .* Whole returns tuple for 2 frames"),
        (
            PPO_TINY, {"network": "own_lights:Means", "env_options": "actions=box"}, ValueError,
            r"`log_std` of shape \(2,\).* is None",
        ),
        (PPO_TINY, {"env_options": "acts=box"}, ValueError, "does not take"),
        (
            PPO_TINY, {"network": "own_lights:Headless", "pruning": "unstructured"}, ValueError,
            "needs an attribute `heads`, a tuple",
        ),
        (
            PPO_TINY, {"network": "own_lights:Misnamed", "pruning": "unstructured"}, ValueError,
            r"names of its output layers, got \('actor', 'critic'\); its layers are encoder, .*outputs.0",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_and_leaves_no_folder(
    own: Any, tmp_path: Path, config: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gsprune.rl.train(replace(config, env_id="own_lights:Lights", **options), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


def squares(make: Callable[[], gymnasium.Env[Any, Any]]) -> OwnProvider:
    """A provider of another package."""

    def one() -> gymnasium.Env[Any, Any]:
        space = Box(0, 255, (3, 36, 40), np.uint8)
        return gymnasium.wrappers.TransformObservation(make(), lambda image: image.transpose(2, 0, 1), space)

    return OwnProvider("squares", (3, 36, 40), lambda request: GymnasiumGames(one, request))


class LazyPPOConfig(PPOConfig):
    """Options of an algorithm of another package."""


class LazyNetwork(ActorCritic):
    """Its network."""


class LazyTrainer(PPOTrainer):
    """It does not learn."""

    @staticmethod
    def build_network(encoder: Encoder, environment: EnvironmentDescription) -> LazyNetwork:
        return LazyNetwork(encoder, int(environment.action_space.n))  # type: ignore[attr-defined]

    def _update(self) -> dict[str, float]:
        return {}


def test_a_provider_and_an_algorithm_from_outside_are_used_by_name(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments.register_provider(squares(own.Lights))
    algorithms.register_algorithm(replace(PPO, name="lazy", config=LazyPPOConfig, presets={}, trainer=LazyTrainer))
    config = LazyPPOConfig(**{**vars(PPO_TINY), "env_id": "squares"})
    agent = gsprune.rl.train(config, tmp_path / "run", encoder=own.Encoder, say=quiet)
    assert agent.algorithm.name == "lazy"
    assert isinstance(agent.network, LazyNetwork)  # training and evaluation build the same network
    assert agent.network.encoder.conv.out_channels == 2
    assert "losses/policy_loss" not in read_metrics(tmp_path / "run")[-1]
    with pytest.raises(ValueError, match=r"must be one of ppo, dqn, lazy.*got 'lasy'; did you mean 'lazy'"):
        algorithms.algorithm_of("lasy")
    with pytest.raises(ValueError, match="an algorithm 'ppo' already"):
        algorithms.register_algorithm(PPO)
    with pytest.raises(ValueError, match="did you mean 'squares'"):
        environments.provider_of("sqares")


def test_a_run_whose_episodes_never_end_is_trained_and_summed_up_without_an_evaluation(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(own.Lights):  # type: ignore[misc]
        def step(self, action: Any) -> Any:
            picture, reward, _, _, infos = super().step(action)
            return picture, reward, False, False, infos

    monkeypatch.setattr(ProtocolConfig.__init__, "__defaults__", (*ProtocolConfig.__init__.__defaults__[:-1], 40))
    lines: list[str] = []
    config = replace(PPO_TINY, eval_interval_episodes=2, eval_points=2)
    gsprune.rl.train(config, tmp_path / "run", envs=Endless, encoder=own.Encoder, say=lines.append)
    told = [line for line in lines if "given up" in line]
    assert len(told) == 2  # at the first point of the training, and at its end
    assert "an episode has not ended after 40 steps" in told[0]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_return"] is None


def test_the_replay_of_dqn_bootstraps_from_the_last_observation_before_a_time_limit(own: Any, tmp_path: Path) -> None:
    config = replace(DQN_TINY, env_id=object_name(own.Lights), encoder=object_name(own.Encoder), n_step=3, gamma=0.5)
    run = RunFolder.create(tmp_path / "run", "dqn", asdict(config))
    trainer = DQNTrainer(config, run, say=quiet)
    steps = []
    step = trainer.envs.step
    trainer.envs.step = lambda actions: steps.append(step(actions)) or steps[-1]
    for _ in range(16):
        trainer._act()
    last = [int(picture.flat[0]) for picture in steps[11][4]["final_obs"]]
    assert last != [int(picture.flat[0]) for picture in steps[11][0]]
    batch = trainer.replay.sample(300, np.random.default_rng(0))
    times, envs = np.divmod(batch.leaves, 2)
    for time, discount in ((8, 0.125), (9, 0.125), (10, 0.25), (11, 0.5)):
        for env in range(2):
            found = (times == time) & (envs == env)
            assert found.any()
            assert set(batch.discounts[found]) == {np.float32(discount)}
            picture = int(steps[10][0][env].flat[0]) if time == 8 else last[env]
            assert set(batch.next_observations[found].ravel()) == {picture}
    assert (batch.discounts > 0).all()
    trainer.close()
    run.close()


@pytest.mark.parametrize("norm_reward", [True, False])
def test_the_return_of_a_truncated_episode_counts_the_value_of_its_last_observation(
    own: Any, tmp_path: Path, norm_reward: bool
) -> None:
    config = replace(PPO_TINY, env_id=object_name(own.Lights), encoder=object_name(own.Encoder), gamma=0.5)
    config = replace(config, norm_reward=norm_reward)
    run = RunFolder.create(tmp_path / "run", "ppo", asdict(config))
    trainer = PPOTrainer(config, run, say=quiet)
    steps = []
    step = trainer.envs.step
    trainer.envs.step = lambda actions: steps.append(step(actions)) or steps[-1]
    trainer._collect()
    rollout = trainer.rollout
    normalizer = RewardNormalizer(2, 0.5)
    steps_of_rollout = zip(rollout.rewards, rollout.ended, strict=True)
    rewards = [normalizer(raw, ended) if norm_reward else raw for raw, ended in steps_of_rollout]
    returns = rollout.minibatch(torch.arange(32)).returns.view(16, 2)
    _, _, _, truncated, infos = steps[11]
    assert truncated.all()
    with torch.no_grad():
        final_values = trainer.agent(torch.from_numpy(np.stack(infos["final_obs"])))[1]
    assert final_values.abs().min() > 1e-3
    torch.testing.assert_close(returns[11], torch.from_numpy(rewards[11]) + 0.5 * final_values)
    assert not rollout.final_values[:11].any()
    trainer.close()
    run.close()
