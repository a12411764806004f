from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gsprune.sweep.plan import BUILT_IN_METHODS, Study, option_arguments, parse_method, parse_options, read_study

STUDY = """
algorithm: dqn
games: [bigfish, starpilot]
seeds: [1, 2]
common: {width: 1, total_timesteps: 1000}
methods:
  dense:
  narrow: {pruning: none, total-timesteps: 500}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_a_study_is_the_product_of_games_methods_and_seeds(tmp_path: Path) -> None:
    trials = read_study(write(tmp_path, STUDY)).trials(Path("out"))
    assert [trial.name for trial in trials] == [
        "bigfish/dense/seed-1",
        "bigfish/narrow/seed-1",
        "starpilot/dense/seed-1",
        "starpilot/narrow/seed-1",
        "bigfish/dense/seed-2",
        "bigfish/narrow/seed-2",
        "starpilot/dense/seed-2",
        "starpilot/narrow/seed-2",
    ]
    assert trials[0].folder == Path("out/bigfish/dense/seed-1")
    assert {trial.algorithm for trial in trials} == {"dqn"}


def test_a_methods_options_win_over_the_common_ones_however_they_are_spelt(tmp_path: Path) -> None:
    dense, narrow = read_study(write(tmp_path, STUDY)).trials(Path("out"))[:2]
    assert dense.arguments == ("--width", "1", "--total-timesteps", "1000", "--pruning", "none")
    assert narrow.arguments == ("--width", "1", "--total-timesteps", "500", "--pruning", "none")


def test_a_method_may_take_its_widths_from_another_ones_run_of_the_same_game_and_seed(tmp_path: Path) -> None:
    text = "games: [maze]\nseeds: [1, 2]\nmethods: {small: {pruning: none, widths_of: group}, group: }"
    small = read_study(write(tmp_path, text)).trials(Path("out"))[2]
    assert small.name == "maze/small/seed-2"
    assert small.needs == Path("out/maze/group/seed-2")
    assert small.arguments == ("--pruning", "none", "--widths-of", "out/maze/group/seed-2")


def test_widths_of_a_run_outside_the_study_are_left_as_they_are(tmp_path: Path) -> None:
    text = "games: maze\nseeds: 1\nmethods: {small: {pruning: none, widths-of: runs/other}}"
    (small,) = read_study(write(tmp_path, text)).trials(Path("out"))
    assert (small.needs, small.arguments[-1]) == (None, "runs/other")


def test_methods_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    text = "games: maze\nseeds: 1\nmethods: {a: {widths-of: b}, b: {widths-of: a}}"
    with pytest.raises(ValueError, match="`widths-of` must not be circular: a needs b needs a"):
        read_study(write(tmp_path, text))


def test_methods_may_be_a_list_of_built_in_ones_and_one_game_needs_no_list(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, "games: bigfish\nseeds: 3\nmethods: [dense, group]"))
    assert study.games == ("bigfish",)
    assert study.seeds == (3,)
    assert study.methods == {"dense": BUILT_IN_METHODS["dense"], "group": BUILT_IN_METHODS["group"]}
    assert study.algorithm == "ppo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("games: [", "is not YAML"),
        ("- bigfish", "must be a mapping with games, seeds and methods, got list"),
        ("games: bigfish\nseeds: 1\nmethods: [dense]\nworkers: 2", "unknown keys workers; the keys are games"),
        ("games: bigfish", "lacks seeds, methods"),
        ("games: pong\nseeds: 1\nmethods: [dense]", "no game 'pong'; Procgen has bigfish"),
        ("games: bigfish\nseeds: 1\nmethods: [best]", "no built-in method 'best' .*define it by its options"),
        ("games: bigfish\nseeds: [1, 1]\nmethods: [dense]", "`seeds` must not repeat a value"),
        ("games: bigfish\nseeds: [a]\nmethods: [dense]", "`seeds` must be integers of at least 0, got 'a'"),
        ("games: bigfish\nseeds: []\nmethods: [dense]", "`seeds` must not be empty"),
        ("games: bigfish\nseeds: 1\nmethods: {a/b: {width: 1}}", "a method's name is also a folder name"),
        ("games: bigfish\nseeds: 1\nmethods: {a: 3}", "`methods.a` must map options to values, got 3"),
        ("games: bigfish\nseeds: 1\nmethods: {a: {env-id: maze}}", "must not set 'env-id'"),
        ("games: bigfish\nseeds: 1\nmethods: [dense]\ncommon: {seed: 3}", "`common` must not set 'seed'"),
        (
            "games: bigfish\nseeds: 1\nmethods: [dense]\nalgorithm: a2c",
            "`algorithm` must be one of ppo, dqn, .*got 'a2c'",
        ),
    ],
)
def test_a_bad_study_is_refused_with_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_study(write(tmp_path, text))


def test_a_study_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the study .*none\.yaml: No such file"):
        read_study(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"width": 1.5}, ["--width", "1.5"]),
        ({"rescale": True, "channels_last": False}, ["--rescale", "--no-channels-last"]),
        ({"ignore": ["a", "b"]}, ["--ignore", "a", "b"]),
        ({"torch_threads": None}, []),
    ],
)
def test_options_become_words(options: dict[str, Any], words: list[str]) -> None:
    assert option_arguments(options) == words


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("--width 1 --rescale", {"width": "1", "rescale": True}),
        ("--width=1", {"width": "1"}),
        ("--ignore a b 'c d'", {"ignore": ["a", "b", "c d"]}),
        ("--shift -1", {"shift": "-1"}),
    ],
)
def test_words_become_options(text: str, options: dict[str, Any]) -> None:
    assert parse_options(text) == options


def test_a_method_on_the_command_line_is_built_in_or_defined() -> None:
    assert parse_method("group") == ("group", {"pruning": "group"})
    assert parse_method("small=--pruning none --width 1") == ("small", {"pruning": "none", "width": "1"})
    with pytest.raises(ValueError, match=r"'best=--pruning none --width 1' on the command line"):
        parse_method("best")
    with pytest.raises(ValueError, match="options begin with '--', got 'width' in 'width 1'"):
        parse_method("small=width 1")


def test_a_study_made_by_hand_is_checked_as_well() -> None:
    with pytest.raises(ValueError, match="`games` must not be empty"):
        Study(games=(), seeds=(1,), methods={"dense": {}})


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "docs" / "sweeps").glob("*.yaml")), ids=str)
def test_the_studies_of_the_documentation_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(path.parent)  # a study may name an algorithm in a module beside it
    trials = read_study(path).trials(Path("out"))
    assert len({trial.folder for trial in trials}) == len(trials) > 0
