from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gsprune.report.load import find_runs, load_run, load_runs

RunWriter = Callable[..., Path]


def test_runs_are_found_at_and_below_a_path_each_once(write_run: RunWriter, tmp_path: Path) -> None:
    a, b = write_run("study/a"), write_run("study/deep/b")
    assert find_runs([tmp_path / "study"]) == [a, b]
    assert find_runs([b, tmp_path / "study", a]) == [b, a]


def test_runs_inside_of_a_run_are_found_too(write_run: RunWriter, tmp_path: Path) -> None:
    outer, inner = write_run("outer"), write_run("outer/inner")
    assert find_runs([outer]) == [outer, inner]


def test_files_of_other_programs_are_no_runs(write_run: RunWriter, tmp_path: Path) -> None:
    run = write_run("project/run")
    for name, text in [("tool", '{"version": 1}'), ("list", "[1]"), ("broken", "{")]:
        (tmp_path / "project" / name).mkdir()
        (tmp_path / "project" / name / "config.json").write_text(text)
    assert find_runs([tmp_path / "project"]) == [run]


def test_a_path_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no run in"):
        find_runs([tmp_path])
    with pytest.raises(ValueError, match=r"there is no folder '.*nowhere'"):
        find_runs([tmp_path / "nowhere"])


def test_a_run_is_read_whole(write_run: RunWriter) -> None:
    run = load_run(write_run(sparsity=0.8, env_id="maze", seed=4, distribution_mode="hard"))
    assert (run.game, run.seed, run.config["distribution_mode"], run.finished) == ("maze", 4, "hard", True)
    assert run.column("step")[-1] == 100_000
    assert run.last("eval/test_return") == run.rows[89]["eval/test_return"]
    assert np.isnan(run.column("eval/test_return")[0])
    assert run.widths()["encoder.linear"][[0, -1]].tolist() == [256, 52]
    assert run.pruning_steps() == list(range(21_000, 81_000, 1_000))


def test_a_run_that_has_just_begun_or_is_writing_its_next_row_can_be_read(write_run: RunWriter) -> None:
    folder = write_run(rows=2, finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3')
    assert len(load_run(folder).rows) == 2
    (folder / "metrics.jsonl").unlink()
    run = load_run(folder)
    assert (run.rows, run.finished, run.last("step"), run.pruning_steps()) == ([], False, None, [])
    assert run.steps is None


def test_damage_names_the_file(write_run: RunWriter) -> None:
    folder = write_run()
    (folder / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json' is damaged"):
        load_run(folder)
    (folder / "summary.json").unlink()
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="it is not a run of this program"):
        load_run(folder)


def test_labels_say_what_differs_and_nothing_else(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("a")
    write_run("b", sparsity=0.8, seed=2)
    assert [run.method for run in load_runs([tmp_path])] == ["dense", "group 0.8"]
    write_run("c", width=2.0)
    write_run("d", env_id="maze")
    assert [run.method for run in load_runs([tmp_path])] == ["x1 dense", "x1 group 0.8", "x2 dense", "x1 dense"]


def test_a_network_that_was_small_from_the_start_says_so_and_was_never_pruned(write_run: RunWriter) -> None:
    folder = write_run(pruning="none", widths_of="runs/group")
    rows = [{"step": step, "pruning/sparsity": 0.0, "pruning/channel_sparsity": 0.8} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = load_runs([folder])[0]
    assert run.method == "small from scratch"
    assert run.pruning_steps() == []


def test_a_run_that_was_pruned_to_a_budget_is_called_by_it(write_run: RunWriter) -> None:
    assert (
        load_run(write_run(sparsity=0.8, target="latency", latency_budget_ms=0.4)).method
        == "PPO impoola x1 group to 0.4 ms"
    )


def test_runs_of_the_same_label_are_told_apart_by_their_options(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("a", sparsity=0.8, scope="local", seed=1, eval_episodes=10)
    write_run("b", sparsity=0.8, scope="global", seed=2, eval_episodes=20)
    assert [run.method for run in load_runs([tmp_path])] == ["group 0.8 (scope=local)", "group 0.8 (scope=global)"]


def test_options_of_the_environment_are_told_apart_one_by_one_within_a_game(
    write_run: RunWriter, tmp_path: Path
) -> None:
    write_run("a", env_options="size=84, stack=4")
    write_run("b", env_options="size=64,stack=4,asynchronous=false", workers=1)
    write_run("c", env_options="stack=4", workers=2)
    write_run("d", env_id="maze", env_options="stack=2")
    assert [run.method for run in load_runs([tmp_path])] == ["dense (size=84)", "dense (size=64)", "dense", "dense"]


def test_runs_of_a_sweep_are_called_and_ordered_as_in_the_study(write_run: RunWriter, tmp_path: Path) -> None:
    write_run("study/bigfish/baseline/seed-1")
    write_run("study/bigfish/a-shrinking-one/seed-1", sparsity=0.8)
    trials = [{"folder": f"bigfish/{method}/seed-1", "method": method} for method in ("baseline", "a-shrinking-one")]
    (tmp_path / "study" / "sweep.json").write_text(json.dumps({"trials": trials}))
    assert [run.method for run in load_runs([tmp_path / "study"])] == ["baseline", "a-shrinking-one"]
    alone = tmp_path / "study" / "bigfish" / "baseline" / "seed-1"
    assert load_runs([alone])[0].method == "baseline"


def test_the_results_of_a_finished_run_are_its_summarys(write_run: RunWriter) -> None:
    run = load_run(write_run(test_return=20.5, level=30.0, latency_ms=0.7, sparsity=0.8))
    assert (run.train_return, run.test_return) == (30.0, 20.5)
    assert run.normalised_test == pytest.approx(0.5)
    assert (run.latency_ms, run.dense_latency_ms, run.steps, run.seconds) == (0.7, 2.0, 100_000, 600.0)
    assert run.last("pruning/sparsity") == pytest.approx(0.8)


def test_the_returns_of_an_unfinished_run_are_its_last_evaluations(write_run: RunWriter) -> None:
    run = load_run(write_run(finished=False))
    assert run.test_return == run.rows[89]["eval/test_return"]
    assert run.latency_ms is None


def test_an_evaluation_counts_if_it_is_of_the_newest_checkpoint_and_large_enough(write_run: RunWriter) -> None:
    folder = write_run(test_return=5.0, eval_episodes=64)
    evaluation = {"step": 100_000, "num_envs": 16, "episodes_per_env": 4, "tracks": {"test": {"mean": 7.0}}}
    for change, expected in [({}, 7.0), ({"step": 50_000}, 5.0), ({"episodes_per_env": 3}, 5.0)]:
        (folder / "eval.json").write_text(json.dumps(evaluation | change))
        assert load_run(folder).test_return == expected
    assert load_run(folder).train_return == 20.0


def test_of_an_unfinished_run_any_evaluation_of_the_newest_checkpoint_counts(write_run: RunWriter) -> None:
    folder = write_run(finished=False, eval_episodes=64)
    evaluation = {"step": 100_000, "num_envs": 1, "episodes_per_env": 1, "tracks": {"test": {"mean": 7.0}}}
    (folder / "eval.json").write_text(json.dumps(evaluation))
    assert load_run(folder).test_return == 7.0
