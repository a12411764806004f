import dataclasses

import numpy as np
import pytest
import torch

from gsprune.rl.algorithms.dqn.config import DQNConfig
from gsprune.rl.algorithms.dqn.trainer import DQNTrainer
from gsprune.rl.training.idle_options import without_idle
from gsprune.rl.training.metrics import read_metrics
from gsprune.rl.training.run_folder import RunFolder

TINY = DQNConfig(
    encoder="nature",
    width=1,
    total_timesteps=240,
    num_envs=4,
    batch_size=8,
    replay_capacity=160,
    replay_spare=400,
    learning_starts=40,
    target_interval=72,
    prune_interval=3,
    log_interval=5,
    eval_episodes=0,
    eval_interval_episodes=0,
    checkpoint_minutes=1000.0,
)


@pytest.fixture
def start(tmp_path):
    """Makes trainers of runs by name, closes them all."""
    trainers = {}

    def close(name):
        trainer = trainers.pop(name)
        trainer.close()
        trainer.run.close()

    def make(name="run", resume=False, say=lambda line: None, **changes):
        if name in trainers:
            close(name)
        config = without_idle(dataclasses.replace(TINY, **changes), TINY)
        folder = tmp_path / name
        values = dataclasses.asdict(config)
        run = RunFolder.open(folder) if resume else RunFolder.create(folder, "dqn", values)
        trainers[name] = DQNTrainer(config, run, resume=resume, say=say)
        return trainers[name]

    make.close = close
    yield make
    for name in list(trainers):
        close(name)


def stop_at(trainer, iteration):
    return lambda: trainer.iteration >= iteration


def rows(trainer):
    """Metrics that do not depend on the clock."""
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_metrics(trainer.run.path)
    ]


def numbers(row):
    return {key: value for key, value in row.items() if value is not None}


def same_weights(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_vector_step_is_followed_by_one_gradient_step_once_learning_starts(start):
    trainer = start(pruning="none")
    updates, told = [], []
    trainer.train(
        on_row=lambda _, row: updates.append(row["charts/updates"]), on_activity=lambda *activity: told.append(activity)
    )
    # 40 steps = 10 vector steps; the tenth is the first with an update.
    assert updates[:4] == [0, 1, 6, 11]
    assert updates[-1] == 60 - 9
    assert rows(trainer)[0]["losses/td_loss"] is None
    assert np.isfinite([row["losses/td_loss"] for row in rows(trainer)[1:]]).all()
    assert told[8:10] == [(36, "filling the replay"), (40, "playing and learning")]
    assert [step for step, _ in told] == list(range(4, 241, 4))


def test_the_target_is_a_hard_copy_of_the_agent_at_every_multiple_of_the_interval(start):
    trainer = start(pruning="none", log_interval=1)
    copied = []
    trainer.train(on_row=lambda step, _: same_weights(trainer.agent, trainer.target) and copied.append(step))
    before_learning = list(range(4, 40, 4))
    assert copied == [*before_learning, 72, 144, 216]


def test_the_target_shrinks_with_the_agent_and_keeps_its_own_weights(start, monkeypatch):
    trainer = start()
    step = trainer.method.step
    removed = []

    def checked_step(progress, frames):
        before = {name: value.clone() for name, value in trainer.target.named_parameters()}
        report = step(progress, frames)
        for name, value in trainer.target.named_parameters():
            torch.testing.assert_close(value, report.slice(name, before[name]), rtol=0, atol=0)
        removed.append(report.changed)
        return report

    monkeypatch.setattr(trainer.method, "step", checked_step)
    trainer.train()
    assert sum(removed) > 5
    assert trainer.size.widths == {"encoder.conv1": 7, "encoder.conv2": 13, "encoder.conv3": 13, "encoder.linear": 52}
    shapes = {name: value.shape for name, value in trainer.agent.named_parameters()}
    assert shapes == {name: value.shape for name, value in trainer.target.named_parameters()}
    for parameter in trainer.agent.parameters():
        assert trainer.optimizer.state[parameter]["exp_avg_sq"].shape == parameter.shape


def test_events_come_every_so_many_updates_and_once_when_the_schedule_ends(start, monkeypatch):
    trainer = start(prune_interval=15)
    events = []
    prune = trainer._prune
    monkeypatch.setattr(trainer, "_prune", lambda progress, *rest: (events.append(progress), prune(progress, *rest)))
    trainer.train()
    # Updates 15, 30 and 45 fall on vector steps 24, 39 and 54 of 60; the schedule ends with vector step 48.
    assert events == pytest.approx([0.4, 0.65, 0.8, 0.9])
    assert rows(trainer)[-1]["pruning/sparsity"] >= 0.79


def test_a_run_killed_ahead_of_its_checkpoint_goes_on_to_the_same_metrics(start, monkeypatch):
    whole = start("whole")
    whole.train()
    interrupted = start("interrupted")
    assert not interrupted.train(should_stop=stop_at(interrupted, 6))
    # As many iterations as need no checkpoint: metrics and replay file are ahead of it, as after kill -9.
    monkeypatch.setattr(interrupted, "save_checkpoint", lambda: None)
    interrupted.train(should_stop=stop_at(interrupted, 10))
    assert len(rows(interrupted)) == 10
    resumed = start("interrupted", resume=True)
    assert resumed.iteration == 6
    assert resumed.train()
    assert rows(resumed) == rows(whole)
    assert len(rows(whole)) == 12
    assert same_weights(resumed.agent, whole.agent)
    assert same_weights(resumed.target, whole.target)


@pytest.mark.parametrize("pruning", ["none", "structured", "unstructured", "redo"])
def test_every_baseline_resumes_to_the_same_metrics(start, pruning):
    whole = start("whole", pruning=pruning)
    whole.train()
    interrupted = start("interrupted", pruning=pruning)
    interrupted.train(should_stop=stop_at(interrupted, 7))
    resumed = start("interrupted", resume=True, pruning=pruning)
    resumed.train()
    assert rows(resumed) == rows(whole)
    assert same_weights(resumed.agent, whole.agent)
    expected = {"none": 0.0, "structured": 0.8, "unstructured": 0.8, "redo": 0.0}[pruning]
    assert rows(whole)[-1]["pruning/sparsity"] == pytest.approx(expected, abs=0.01)
    assert rows(whole)[-1]["pruning/channel_sparsity"] == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        *[{"importance": name} for name in ("l2", "taylor", "lamp", "fpgm", "hessian", "random")],
        *[{"scope": "global"}, {"scope": "isomorphic", "rescale": True}, {"target": "params"}, {"target": "macs"}],
    ],
    ids=str,
)
def test_criteria_scopes_targets_and_rescaling_of_the_core_are_options_of_a_run(start, changes):
    trainer = start(**changes)
    assert trainer.train()
    assert rows(trainer)[-1]["pruning/sparsity"] == pytest.approx(0.8, abs=0.03)
    assert np.isfinite([row["losses/td_loss"] for row in rows(trainer)[1:]]).all()


def test_a_compensated_run_shrinks_agent_and_target_and_resumes_to_the_same_metrics(start, monkeypatch):
    changes = {"compensate": "linear", "importance": "reconstruction", "calibration_frames": 20}
    whole = start("whole", **changes)
    reports, step = [], whole.method.step

    def watched(progress, frames):
        assert frames.shape[0] == 20
        reports.append(step(progress, frames))
        return reports[-1]

    monkeypatch.setattr(whole.method, "step", watched)
    whole.train()
    interrupted = start("interrupted", **changes)
    interrupted.train(should_stop=stop_at(interrupted, 7))
    resumed = start("interrupted", resume=True, **changes)
    resumed.train()
    assert rows(resumed) == rows(whole)
    assert same_weights(resumed.agent, whole.agent)
    assert same_weights(resumed.target, whole.target)
    assert [report.compensation is not None for report in reports] == [report.changed for report in reports]
    assert whole.size.widths == {"encoder.conv1": 7, "encoder.conv2": 13, "encoder.conv3": 13, "encoder.linear": 52}
    shapes = [value.shape for value in whole.agent.parameters()]
    assert shapes == [value.shape for value in whole.target.parameters()]
    assert np.isfinite([row["losses/td_loss"] for row in rows(whole)[1:]]).all()


def test_a_step_logs_the_share_of_greedy_actions_that_change_and_the_error_of_the_values(start, monkeypatch):
    trainer = start(compensate="linear", calibration_frames=20)
    events, step = [], trainer.method.step

    @torch.no_grad()
    def watched(progress, frames):
        held_out = trainer._held_out_frames(trainer.updates)
        before = trainer.agent(held_out)
        report = step(progress, frames)
        after = trainer.agent(held_out)
        if report.changed:
            changed = (before.argmax(1) != after.argmax(1)).double().mean().item()
            error = (after - before).square().mean().sqrt() / before.std(correction=0)
            events[-1].append((changed, error.item()))
        return report

    monkeypatch.setattr(trainer.method, "step", watched)
    events.append([])
    trainer.train(on_row=lambda *_: events.append([]))
    logged = rows(trainer)
    assert any(len(of_row) > 1 for of_row in events)
    for row, of_row in zip(logged, events[:-1], strict=True):
        assert ("pruning/value_error" in row) == bool(of_row)
        if of_row:  # of several events the largest
            assert row["pruning/action_change"] == pytest.approx(max(changed for changed, _ in of_row))
            assert row["pruning/value_error"] == pytest.approx(max(error for _, error in of_row), rel=1e-3)


@pytest.mark.parametrize("pruning", ["structured", "unstructured"])
def test_masked_weights_of_agent_target_and_optimizer_are_zero_after_every_iteration(start, pruning):
    trainer = start(pruning=pruning)
    masked = []

    def check(_, row):
        agent, target = dict(trainer.agent.named_parameters()), dict(trainer.target.named_parameters())
        for name, mask in trainer.method.masks.items():
            state = trainer.optimizer.state.get(agent[name], {})
            moments = [state[key] for key in ("exp_avg", "exp_avg_sq") if key in state]
            assert all((tensor[~mask] == 0).all() for tensor in (agent[name], target[name], *moments))
        masked.append(sum(int((~mask).sum()) for mask in trainer.method.masks.values()))

    trainer.train(on_row=check)
    assert masked == sorted(masked)
    assert masked[0] == 0 < masked[-1]


def test_checkpoints_come_before_the_spare_rows_are_used_up(start):
    trainer = start(replay_spare=80)
    saved = []
    save = trainer.save_checkpoint
    trainer.save_checkpoint = lambda: (saved.append(trainer.env_steps), save())
    trainer.train()
    # 80 spare transitions are 20 vector steps; half of them allow two iterations of 5.
    assert saved == [40, 80, 120, 160, 200, 240]


def test_a_replay_in_memory_is_filled_anew_by_a_resumed_run_which_says_so(start):
    lines = []
    trainer = start(replay_storage="memory", pruning="none")
    trainer.train(should_stop=stop_at(trainer, 6))
    updates = trainer.updates
    resumed = start(replay_storage="memory", pruning="none", resume=True, say=lines.append)
    counts = []
    resumed.train(on_row=lambda _, row: counts.append(row["charts/updates"]))
    assert counts[:3] == [updates, updates + 1, updates + 6]
    assert any("the replay was in memory and is lost: learning goes on after 40 new steps" in line for line in lines)


def test_a_resumed_run_whose_replay_file_is_missing_says_so_and_fills_it_anew(start):
    lines = []
    trainer = start()
    trainer.train(should_stop=stop_at(trainer, 6))
    (trainer.run.path / "replay.bin").unlink()
    resumed = start(resume=True, say=lines.append)
    assert resumed.replay.size == 0
    assert resumed.train()
    assert any("replay.bin, which is missing, and is lost" in line for line in lines)


def test_the_replay_file_goes_when_the_training_is_over_and_only_then(start):
    trainer = start()
    file = trainer.run.path / "replay.bin"
    trainer.train(should_stop=stop_at(trainer, 6))
    start.close("run")
    assert file.exists()
    lines = []
    start(resume=True, say=lines.append).train()
    start.close("run")
    assert not file.exists()
    # A finished run can be opened again, to conclude again.
    assert start(resume=True, say=lines.append).train()
    start.close("run")
    assert not file.exists()
    assert not any("gone" in line for line in lines)


def test_an_interrupt_while_the_last_checkpoint_is_written_leaves_the_replay_file(start, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    trainer = start(total_timesteps=60)
    trainer.train(stop_at(trainer, 2))
    monkeypatch.setattr(DQNTrainer, "save_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    monkeypatch.undo()
    assert trainer.progress == 1
    lines = []
    resumed = start(resume=True, say=lines.append, total_timesteps=60)
    assert resumed.iteration == 2
    assert not any("gone" in line for line in lines)


def test_the_whole_run_is_the_same_for_the_same_seed_and_another_for_another(start):
    first, second, third = start("first"), start("second"), start("third", seed=2)
    for trainer in (first, second, third):
        trainer.train(should_stop=stop_at(trainer, 5))
    assert rows(first) == rows(second)
    assert rows(first) != rows(third)


def test_pieces_of_a_batch_add_up_to_the_whole_batch(start):
    whole, pieces = start("whole", pruning="none"), start("pieces", pruning="none", microbatch_size=3)
    for trainer in (whole, pieces):
        trainer.train(should_stop=stop_at(trainer, 4))
    for ours, theirs in zip(whole.agent.parameters(), pieces.agent.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_gradients_are_scaled_down_to_the_norm_unless_it_is_none(start, monkeypatch):
    norms = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, norm: norms.append(norm))
    for name, norm in (("limited", 0.25), ("free", None)):
        trainer = start(name, pruning="none", max_grad_norm=norm, adam_eps=1e-8)
        trainer.train(should_stop=stop_at(trainer, 2))
        assert trainer.optimizer.param_groups[0]["eps"] == 1e-8
    assert norms == [0.25]


def test_any_number_of_workers_gives_the_same_metrics_and_weights(start):
    one, three = start("one", microbatch_size=3, workers=1), start("three", microbatch_size=3, workers=3)
    for trainer in (one, three):
        trainer.train(should_stop=stop_at(trainer, 5))
    assert rows(one) == rows(three)
    assert all(map(torch.equal, one.agent.parameters(), three.agent.parameters()))


def test_compiled_and_eager_runs_agree_and_widths_change_only_while_eager(start):
    lines = []
    compiled = start("compiled", compile=True, say=lines.append)
    compiled.compilation._backend = "eager"
    compiled.train()
    eager = start("eager")
    eager.train()
    for ours, theirs in zip(rows(compiled), rows(eager), strict=True):
        assert {key for key, value in ours.items() if value is None} == set(theirs) - set(numbers(theirs))
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=1e-3, abs=1e-4)
    assert compiled.compilation.compilations == 6
    assert sum(line.startswith("compiled ") for line in lines) == 6
    torch.compiler.reset()


def test_a_small_network_from_scratch_has_the_widths_of_a_pruned_run_and_weights_of_its_own(start):
    pruned = start("pruned")
    pruned.train()
    source = str(pruned.run.path)
    whole = start("whole", pruning="none", widths_of=source)
    assert whole.size == pruned.size
    assert whole.dense == pruned.dense
    assert not any(
        torch.equal(a, b) for a, b in zip(whole.agent.parameters(), pruned.agent.parameters(), strict=True) if a.any()
    )
    bound = 1 / (whole.agent.encoder.linear.in_features**0.5)
    assert 0.9 * bound < whole.agent.encoder.linear.weight.abs().max() <= bound
    whole.train()
    # The source is needed at the start only: the run's own checkpoint knows its widths.
    interrupted = start("parts", pruning="none", widths_of=source)
    interrupted.train(should_stop=stop_at(interrupted, 4))
    resumed = start("parts", resume=True, pruning="none", widths_of="/nowhere")
    resumed.train()
    assert rows(resumed) == rows(whole)
