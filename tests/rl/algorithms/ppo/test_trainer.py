"""PPO: the update is that of the formulas, runs repeat themselves, and the network shrinks on schedule."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from gsprune.rl.algorithms.ppo.config import PRESETS, PPOConfig
from gsprune.rl.algorithms.ppo.losses import (
    categorical_entropy,
    categorical_logprobs,
    normalized,
    policy_loss,
    value_loss,
)
from gsprune.rl.algorithms.ppo.trainer import PPOTrainer
from gsprune.rl.training import evaluations as evaluations_module
from gsprune.rl.training import trainer as trainer_module
from gsprune.rl.training.checkpoints import checkpoint_folders, load_state
from gsprune.rl.training.idle_options import without_idle
from gsprune.rl.training.metrics import read_metrics
from gsprune.rl.training.run_folder import RunFolder

TINY = PPOConfig(
    width=1,
    total_timesteps=160,
    num_envs=2,
    num_steps=16,
    num_minibatches=2,
    update_epochs=2,
    round_to=4,
    torch_threads=1,
    env_threads=1,
    eval_episodes=0,
    eval_interval_episodes=0,
    checkpoint_minutes=0,
)


def run(folder: Path, config: PPOConfig, stop_after: int | None = None, resume: bool = False) -> list[dict[str, Any]]:
    """Train, perhaps only some iterations, and read the metrics without those that depend on the clock."""
    run_folder = RunFolder.open(folder) if resume else RunFolder.create(folder, "ppo", asdict(config))
    trainer = PPOTrainer(config, run_folder, resume=resume, say=lambda line: None)
    done = trainer.iteration
    trainer.train(should_stop=lambda: stop_after is not None and trainer.iteration - done >= stop_after)
    trainer.close()
    run_folder.close()
    return [{key: row[key] for key in row if not key.startswith("time/")} for row in read_metrics(folder)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(tmp_path_factory.mktemp("ppo") / "run", TINY)


def test_a_run_shrinks_every_group_to_the_width_of_the_schedule(uninterrupted: list[dict[str, Any]]) -> None:
    rows = uninterrupted
    assert [row["step"] for row in rows] == [32, 64, 96, 128, 160]
    widths = [[value for key, value in row.items() if key.startswith("width/")] for row in rows]
    assert widths[0] == [16, 16, 16, 32, 32, 32, 32, 32, 32, 256]  # the schedule begins after 20 % of the iterations
    # From 80 % on each group has what floor(0.8 w) leaves, rounded up to a multiple of 4: 4 of 16, 8 of 32, 52 of 256.
    assert widths[3] == widths[4] == [4, 4, 4, 8, 8, 8, 8, 8, 8, 52]
    assert rows[4]["pruning/channel_sparsity"] == pytest.approx(1 - (3 * 4 + 6 * 8 + 52) / (3 * 16 + 6 * 32 + 256))
    assert rows[4]["pruning/params"] < 0.1 * 110_160
    assert rows[4]["pruning/macs"] < 0.1 * 30.1e6
    assert all(np.isfinite(row["losses/policy_loss"]) for row in rows)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_metrics(workers: int, tmp_path: Path) -> None:
    one = replace(TINY, num_envs=16, num_steps=8, total_timesteps=256, microbatch_size=24, workers=1)
    assert run(tmp_path / "one", one) == run(tmp_path / "many", replace(one, workers=workers))


def test_a_preset_of_an_engine_rounds_widths_up_to_its_multiple(tmp_path: Path) -> None:
    widths = [
        value for key, value in run(tmp_path / "run", replace(TINY, round_to="ethos-u"))[-1].items() if "width/" in key
    ]
    assert widths == [
        16,
        16,
        16,
        16,
        16,
        16,
        16,
        16,
        16,
        64,
    ]  # of 4, 4, 4, 7, 7, 7, 7, 7, 7, 52 that the sparsity leaves


def test_the_schedule_can_end_at_a_budget_of_milliseconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(model: nn.Module, *_: object) -> float:
        return sum(parameter.numel() for parameter in model.parameters()) / 110_160

    monkeypatch.setenv("GSPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gsprune.pruning.latency_target._measured_milliseconds", clock)
    config = replace(TINY, target="latency", latency_budget_ms=0.25, round_to=1)
    rows = run(tmp_path / "run", config)
    assert rows[0]["pruning/params"] == 110_160
    assert rows[1]["pruning/params"] > rows[3]["pruning/params"] == rows[4]["pruning/params"]
    assert rows[4]["pruning/params"] / 110_160 == pytest.approx(0.25, rel=0.1)
    short = replace(config, latency_budget_ms=0.0001)
    folder = RunFolder.create(tmp_path / "short", "ppo", asdict(short))
    with pytest.raises(ValueError, match=r"is 0\.0001 ms in eager .* use a larger budget"):  # before any training
        PPOTrainer(short, folder)
    folder.close()


def test_the_same_seed_gives_the_same_metrics(tmp_path: Path, uninterrupted: list[dict[str, Any]]) -> None:
    assert run(tmp_path, TINY) == uninterrupted
    assert run(tmp_path / "other", replace(TINY, seed=2, total_timesteps=32)) != uninterrupted[:1]


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, uninterrupted: list[dict[str, Any]], iterations: int
) -> None:
    assert run(tmp_path, TINY, stop_after=iterations) == uninterrupted[:iterations]
    # What a killed process wrote after its last checkpoint must not stay.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999999}\n{"step": 10000')
    assert run(tmp_path, TINY, resume=True) == uninterrupted


def test_an_iteration_tells_its_steps_and_what_it_does(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "ppo", {})
    trainer = PPOTrainer(replace(TINY, total_timesteps=64, prune_begin=1.0, prune_end=1.0), folder, say=lambda _: None)
    told: list[tuple[int, str]] = []
    trainer.train(on_activity=lambda *activity: told.append(activity))
    trainer.close()
    folder.close()
    learning = [f"learning, epoch {epoch} of 2" for epoch in (1, 1, 2, 2)]  # two minibatches each
    for done in (0, 32):
        played = [(done + step, "playing") for step in range(2, 33, 2)]
        assert told[: len(played)] == played
        assert told[len(played) : 20] == [(done + 32, activity) for activity in learning]
        del told[:20]


def test_pruning_events_come_every_so_many_iterations_and_once_when_the_schedule_ends(tmp_path: Path) -> None:
    config = replace(TINY, total_timesteps=320, prune_interval=3, prune_begin=0.2, prune_end=0.8)
    channels = [row["pruning/channel_sparsity"] for row in run(tmp_path, config)]
    assert [after for after in range(1, 11) if channels[after - 1] > max(channels[: after - 1], default=0)] == [3, 6, 8]


def test_training_time_is_without_evaluations_also_in_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def tick(seconds: float = 1.0) -> float:
        nonlocal now
        now += seconds
        return now

    def evaluate(*_: Any, **__: Any) -> dict[str, Any]:
        tick(1000.0)
        return {}

    for module in (trainer_module, evaluations_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(evaluations_module, "evaluate_tracks", evaluate)
    config = replace(TINY, total_timesteps=96, eval_interval_episodes=4, eval_points=3)
    run(tmp_path, config, stop_after=1)
    run(tmp_path, config, resume=True)  # the evaluation at the end is not the trainer's
    assert all(0 < row["time/seconds"] < 100 for row in read_metrics(tmp_path))
    saved = load_state(checkpoint_folders(tmp_path / "checkpoints")[-1])
    assert saved["seconds"] < 100
    assert 2000 <= saved["evaluation_seconds"] < 2100


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    run(tmp_path, TINY, stop_after=3)
    file = checkpoint_folders(tmp_path / "checkpoints")[-1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert run(tmp_path, TINY, resume=True) == uninterrupted


def test_a_run_that_died_before_its_first_checkpoint_begins_again(
    tmp_path: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    RunFolder.create(tmp_path, "ppo", asdict(TINY)).close()
    assert run(tmp_path, TINY, resume=True) == uninterrupted


@pytest.mark.parametrize("method", ["none", "structured", "unstructured", "redo"])
def test_other_methods_keep_the_size_and_resume_too(tmp_path: Path, method: str) -> None:
    config = without_idle(replace(TINY, pruning=method, encoder="nature", total_timesteps=128), TINY)
    rows = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config, stop_after=2)
    assert run(tmp_path / "parts", config, resume=True) == rows
    assert rows[-1]["pruning/channel_sparsity"] == 0
    if method in ("structured", "unstructured"):
        assert rows[-1]["pruning/sparsity"] == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        *[{"importance": "taylor"}, {"importance": "hessian"}, {"scope": "global", "importance": "lamp"}],
        *[{"scope": "isomorphic", "rescale": True}, {"target": "macs"}],
    ],
    ids=str,
)
def test_criteria_scopes_targets_and_rescaling_of_the_core_are_options_of_a_run(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = replace(TINY, encoder="nature", total_timesteps=128, **changes)
    assert run(tmp_path, config)[-1]["pruning/sparsity"] == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("compensate", "importance"), [("bias", "l1"), ("linear", "l1"), ("linear", "reconstruction")])
def test_a_compensated_run_shrinks_and_resumes_to_the_same_metrics(
    tmp_path: Path, compensate: Literal["bias", "linear"], importance: str
) -> None:
    config = replace(TINY, encoder="nature", compensate=compensate, importance=importance, calibration_frames=24)
    rows = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config, stop_after=3)
    assert run(tmp_path / "parts", config, resume=True) == rows
    assert rows[-1]["pruning/sparsity"] == pytest.approx(0.8, abs=0.03)
    assert all(np.isfinite(row["losses/value_loss"]) for row in rows)


@pytest.mark.parametrize(("preset", "interval", "frames"), [("quick", 1, 51), ("quick", 20, 512), ("paper", 1, 512)])
def test_short_rollouts_calibrate_on_a_twentieth_of_their_frames(preset: str, interval: int, frames: int) -> None:
    config = replace(PRESETS[preset], compensate="linear", prune_interval=interval)
    assert config.num_calibration_frames == frames
    assert replace(config, calibration_frames=99).num_calibration_frames == 99
    assert replace(config, compensate="none").num_calibration_frames == 0


def test_compensation_is_fitted_on_frames_of_the_whole_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TINY, encoder="nature", compensate="linear", calibration_frames=16)
    run_folder = RunFolder.create(tmp_path / "run", "ppo", asdict(config))
    trainer = PPOTrainer(config, run_folder, say=lambda line: None)
    reports, step = [], trainer.method.step

    def watched(progress: float, frames: torch.Tensor) -> Any:
        pairs = trainer.rollout.frames.flatten(0, 1).unflatten(0, (16, 2))  # one of each is taken
        assert (frames[:, None] == pairs).flatten(2).all(2).any(1).all()
        reports.append(step(progress, frames))
        return reports[-1]

    monkeypatch.setattr(trainer.method, "step", watched)
    trainer.train()
    trainer.close()
    run_folder.close()
    assert [report.compensation is not None for report in reports] == [report.changed for report in reports]
    assert any(len(report.compensation.consumers) == 5 for report in reports if report.changed)


@pytest.mark.parametrize("compensate", ["none", "linear"])
def test_a_step_logs_the_change_of_policy_and_values_on_frames_that_calibration_did_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compensate: Literal["none", "linear"]
) -> None:
    changes: dict[str, Any] = {} if compensate == "none" else {"compensate": compensate, "calibration_frames": 16}
    config = replace(TINY, encoder="nature", num_steps=32, total_timesteps=320, **changes)
    run_folder = RunFolder.create(tmp_path / "run", "ppo", asdict(config))
    trainer = PPOTrainer(config, run_folder, say=lambda line: None)
    with torch.no_grad():
        trainer.agent.actor.weight.mul_(100)  # type: ignore[union-attr, operator]  # not uniform from the start
    expected, step = [], trainer.method.step

    def watched(progress: float, frames: torch.Tensor) -> Any:
        held_out = trainer._held_out_frames(trainer.iteration)
        assert held_out.shape == (5, 3, 64, 64)
        if compensate != "none":
            assert not (held_out[:, None] == frames).flatten(2).all(2).any()
        with torch.no_grad():
            (logits, values), generator = trainer.agent(held_out), torch.get_rng_state()
            report = step(progress, frames)
            after, new_values = trainer.agent(held_out)
        logprobs, new_logprobs = logits.log_softmax(-1), after.log_softmax(-1)
        if report.changed:
            kl = (logprobs.exp() * (logprobs - new_logprobs)).sum(-1).mean()
            error = (new_values - values).square().mean().sqrt() / values.std(correction=0)
            expected.append((kl.item(), error.item()))
        else:
            expected.append(None)
        torch.testing.assert_close(torch.get_rng_state(), generator)
        return report

    monkeypatch.setattr(trainer.method, "step", watched)
    trainer.train()
    trainer.close()
    run_folder.close()
    logged = read_metrics(tmp_path / "run")
    assert [event is not None for event in expected] == ["pruning/kl" in row for row in logged]
    for row, event in zip(logged, expected, strict=True):
        if event is not None:
            assert (row["pruning/kl"], row["pruning/value_error"]) == pytest.approx(event, rel=1e-3, abs=1e-6)
    assert any(event is not None and event[0] > 1e-7 and event[1] > 1e-3 for event in expected)


def test_the_gradient_of_a_minibatch_in_pieces_is_that_of_the_published_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, encoder="nature", pruning="none", round_to=1, microbatch_size=5, max_grad_norm=1e9)
    run_folder = RunFolder.create(tmp_path, "ppo", asdict(config))
    trainer = PPOTrainer(config, run_folder, say=lambda line: None)
    trainer._collect()
    batch = trainer.rollout.minibatch(torch.arange(3, 19), normalize=True)
    raw = trainer.rollout.minibatch(torch.arange(3, 19)).advantages
    # The network has moved on since it acted, so that the ratios are not 1.
    with torch.no_grad():
        for parameter in trainer.agent.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    losses = trainer._learn_minibatch(batch)
    actual = [parameter.grad.clone() for parameter in trainer.agent.parameters()]  # type: ignore[union-attr]

    trainer.agent.zero_grad()
    logits, values = trainer.agent(batch.frames)
    logprobs = categorical_logprobs(logits, batch.actions)
    policy = policy_loss(logprobs, batch.logprobs, normalized(raw), 0.2)
    entropy, v_loss = categorical_entropy(logits).mean(), value_loss(values, batch.returns)
    (policy.loss - 0.01 * entropy + 0.5 * v_loss).backward()
    for gradient, parameter in zip(actual, trainer.agent.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-3)
    expected = torch.stack([policy.loss, v_loss, entropy, policy.approx_kl, policy.clipfrac])
    torch.testing.assert_close(losses, expected, atol=1e-6, rtol=1e-4)
    trainer.close()
    run_folder.close()


def test_a_rollout_holds_what_was_seen_and_earned(tmp_path: Path) -> None:
    config = replace(TINY, encoder="nature", pruning="none", round_to=1)
    run_folder = RunFolder.create(tmp_path, "ppo", asdict(config))
    trainer = PPOTrainer(config, run_folder, say=lambda line: None)
    seen, ended = [], []
    step = trainer.envs.step

    def watched(actions: np.ndarray) -> Any:
        seen.append(trainer.next_frames.copy())
        outcome = step(actions)
        ended.append(outcome[2])
        return outcome

    trainer.envs.step = watched  # type: ignore[method-assign]
    trainer._collect()
    rollout = trainer.rollout
    np.testing.assert_array_equal(rollout.frames.numpy(), np.stack(seen))
    np.testing.assert_array_equal(rollout.ended, np.stack(ended))
    with torch.no_grad():
        logits, values = trainer.agent(rollout.frames[3])
        last_values = trainer.agent(torch.from_numpy(trainer.next_frames))[1]
    torch.testing.assert_close(rollout.values[3], values)
    torch.testing.assert_close(rollout.values[-1], last_values)
    torch.testing.assert_close(rollout.logprobs[3], categorical_logprobs(logits, rollout.actions[3]))
    batch = rollout.minibatch(torch.tensor([7]))  # step 3 of the second environment
    assert torch.equal(batch.frames[0], rollout.frames[3, 1])
    assert batch.frames.is_contiguous(memory_format=torch.channels_last)
    assert batch.actions[0] == rollout.actions[3, 1]
    trainer.close()
    run_folder.close()


def test_the_step_size_falls_with_width_unless_given() -> None:
    rates = [PPOConfig(width=width).scaled_learning_rate(3.5e-4, 5e-4) for width in (1, 2, 4)]
    assert rates == pytest.approx([7e-4, 3.5e-4, 1.75e-4])
    assert PPOConfig(encoder="nature", width=2).scaled_learning_rate(3.5e-4, 5e-4) == 5e-4
    assert PPOConfig(learning_rate=1e-3).scaled_learning_rate(3.5e-4, 5e-4) == 1e-3


def test_the_defaults_are_the_published_ones() -> None:
    config = PRESETS["paper"]
    assert (config.total_timesteps, config.num_envs, config.num_steps) == (25_000_000, 64, 256)
    assert config.num_iterations == 1525
    assert config.batch_size // config.num_minibatches == 2048
    assert (config.update_epochs, config.gamma, config.gae_lambda, config.clip_coef) == (3, 0.99, 0.95, 0.2)
    assert (config.ent_coef, config.vf_coef, config.max_grad_norm) == (0.01, 0.5, 0.5)
    assert (config.sparsity, config.prune_begin, config.prune_end) == (0.8, 0.2, 0.8)


IN_TIME: dict[str, Any] = {"target": "latency", "latency_budget_ms": 1.0}
BAD = [
    ({"env_id": "bigfsh"}, "did you mean 'bigfish'"),
    ({"sparsity": 1.0}, r"`sparsity` must be in \[0, 1\), 0.8 removes 80 %, got 1.0"),
    ({"sparsity": -0.1}, r"`sparsity` must be in \[0, 1\), 0.8 removes 80 %, got -0.1"),
    ({"width": 0.5}, "`width` must be at least 1, got 0.5"),
    ({"prune_begin": 0.9}, "`prune_begin` must not be after `prune_end`, got 0.9 and 0.8"),
    ({"prune_end": 1.5}, r"`prune_end` must be in \[0, 1\]"),
    ({"num_minibatches": 3}, "`num_minibatches` must divide num_envs \\* num_steps = 32, got 3"),
    ({"num_minibatches": 32}, "minibatches must hold at least 2 steps"),
    ({"total_timesteps": 16}, "`total_timesteps` must be at least one iteration"),
    ({"device": "cuda:99"}, "but PyTorch sees"),
    ({"device": "tpu9"}, "`device` must be auto, cpu, cuda or cuda:N"),
    ({"learning_rate": 0.0}, "`learning_rate` must be above 0"),
    ({"torch_threads": 0}, "`torch_threads` must be at least 1"),
    ({"workers": 0}, "`workers` must be at least 1"),
    ({"workers": 2, "compile": True}, "`workers` has no effect with `compile`"),
    ({"gamma": 1.1}, r"`gamma` must be in \[0, 1\]"),
    ({"clip_coef": 0.0}, "`clip_coef` must be above 0"),
    ({"microbatch_size": 0}, "`microbatch_size` must be at least 1"),
    ({"eval_episodes": -1}, "`eval_episodes` must be at least 0"),
    ({"rescale": True, "compensate": "bias"}, "`rescale` is True and `compensate` is 'bias'"),
    ({"compensate": "liner"}, "`compensate` must be one of none, bias, linear, got 'liner'"),
    ({"compensate": "linear", "calibration_frames": 15}, "`calibration_frames` must be at least 16, got 15"),
    ({"compensate": "linear", "num_steps": 4}, "`num_envs \\* num_steps` must be at least 16 with `compensate` linear"),
    ({"importance": "reconstruction", "num_steps": 4}, "with `importance` reconstruction, which scores on frames"),
    ({"round_to": 0}, "`round_to` must be at least 1, got 0"),
    ({"round_to": "onnx"}, "`round_to` must be a whole number, a mapping, or one of 'onnxruntime'"),
    ({"target": "latency"}, "`latency_budget_ms` needs target latency, .* got None and latency"),
    ({"latency_budget_ms": 1.0}, "`latency_budget_ms` needs target latency, .* got 1.0 and channels"),
    ({**IN_TIME, "latency_budget_ms": 0.0}, "`milliseconds` must be above 0"),
    ({**IN_TIME, "pruning": "structured"}, "`target` latency needs pruning group, got structured"),
    ({**IN_TIME, "scope": "global"}, "`scope` must be local with `target` latency.*got global"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_option_is_refused_by_name_with_its_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes).check()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_sound(preset: str) -> None:
    PRESETS[preset].check()
