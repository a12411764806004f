"""`gsprune inspect` of files; runs and built-in networks are looked at in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import gsprune
from gsprune.cli import main
from gsprune.rl.training.checkpoints import MODEL_FILE


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    assert main(["inspect", str(path)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_saved_file_shows_its_groups_without_the_code_of_its_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    gsprune.prune_step(model, 0.5, example_inputs=torch.rand(1, 6))
    gsprune.save(model, tmp_path / "a.safetensors", note="from a loop", best=1.5)
    lines = shown(tmp_path / "a.safetensors", capsys)
    assert ["0", "8", "16", "11", "0", "2"] in lines  # 6 weights and a bias in, 4 weights out
    assert ["2", "4", "8", "11", "2", "4"] in lines
    assert ["numbers", "in", "parameters", "and", "buffers:", "102", "of", "266"] in lines
    assert ["note:", "from", "a", "loop"] in lines
    assert ["best:", "1.5"] in lines


def test_a_file_of_a_network_that_was_pruned_twice_tells_its_first_widths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, again = network(), network()
    gsprune.prune_step(model, 0.25, example_inputs=torch.rand(1, 6))
    gsprune.save(model, tmp_path / MODEL_FILE)
    gsprune.load(tmp_path / MODEL_FILE, into=again)
    gsprune.prune_step(again, 0.5, example_inputs=torch.rand(1, 6))
    gsprune.save(again, tmp_path / MODEL_FILE)
    for path in (tmp_path, tmp_path / MODEL_FILE):  # a folder that is no run's, and its file
        assert ["0", "8", "16", "11", "0", "2"] in shown(path, capsys)


def test_a_file_of_a_network_that_was_never_pruned_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gsprune.save(network(), tmp_path / "a.safetensors")
    words = [word for line in shown(tmp_path / "a.safetensors", capsys) for word in line]
    assert "never pruned" in " ".join(words)
    assert "266 of 266" in " ".join(words)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a.safetensors", "--encoder", "impala"], 2, "`encoder` is impala, but 'a.safetensors' has its own network"),
        (["a.safetensors", "--width", "1"], 2, "leave out --width or the path"),
        (["missing.safetensors"], 2, "is neither a run folder nor a checkpoint"),
        (["."], 2, "is neither a run folder nor a checkpoint"),
        (["text"], 1, "text is no checkpoint, or a damaged one"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    gsprune.save(network(), tmp_path / "a.safetensors")
    (tmp_path / "text").write_text("notes about a training run")
    assert main(["inspect", *words]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
