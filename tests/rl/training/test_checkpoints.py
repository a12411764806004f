"""Checkpoints are whole or not there, the last two are kept, and a damaged one is passed over."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gsprune
from gsprune.errors import CheckpointError
from gsprune.rl.training import checkpoints as checkpointing
from gsprune.rl.training.checkpoints import (
    MODEL_FILE,
    checkpoint_folders,
    latest_checkpoint,
    load_state,
    save_checkpoint,
)


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Adam]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, *model_and_optimizer(), {"step": step})


def test_network_optimizer_values_arrays_and_trees_come_back(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    state = {
        "number": 0.1,
        "list": [1, None, "a"],
        "part": {"x": np.arange(3), "y": np.array(7.5)},
        "method": {"masks": {"a": torch.tensor([True, False])}, "calls": 3, "nested": [torch.ones(2)]},
    }
    checkpoint = save_checkpoint(tmp_path, 5, model, optimizer, state)
    loaded = load_state(checkpoint)
    assert loaded["number"] == 0.1
    assert loaded["list"] == [1, None, "a"]
    np.testing.assert_array_equal(loaded["part"]["x"], np.arange(3))
    np.testing.assert_array_equal(loaded["part"]["y"], np.array(7.5))
    tree = loaded["method"]
    assert torch.equal(tree["masks"]["a"], torch.tensor([True, False]))
    assert tree["calls"] == 3
    assert torch.equal(tree["nested"][0], torch.ones(2))
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    other_optimizer = torch.optim.Adam(other.parameters())
    gsprune.load(checkpoint / MODEL_FILE, into=other, optimizer=other_optimizer)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(optimizer.state[one]["exp_avg"], other_optimizer.state[two]["exp_avg"])


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 900, 1000):
        save(tmp_path, step)
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["step-000000000900", "step-000000001000"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_of_a_damaged_last_checkpoint_the_one_before_is_used_and_said(tmp_path: Path, name: str, damage: str) -> None:
    before, last = save(tmp_path, 1), save(tmp_path, 2)
    file = last / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    found, complaints = latest_checkpoint(tmp_path)
    assert found == before
    assert len(complaints) == 1
    assert str(last) in complaints[0]
    assert "the checkpoint before it is used" in complaints[0]


def test_no_or_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        latest_checkpoint(tmp_path)
    (save(tmp_path, 1) / "state.safetensors").write_text("{}")
    with pytest.raises(CheckpointError, match=r"all checkpoints in .* are damaged"):
        latest_checkpoint(tmp_path)


def test_a_full_disk_is_said_and_older_checkpoints_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(tmp_path, 1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpointing, "write_document", full)
    with pytest.raises(CheckpointError, match="the disk is full; make room and resume with --resume"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == [before.name]
    assert latest_checkpoint(tmp_path) == (before, [])


def test_an_interrupted_save_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(tmp_path, 1)

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpointing, "write_document", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    assert latest_checkpoint(tmp_path) == (before, [])
    monkeypatch.undo()
    assert save(tmp_path, 2).name == "step-000000000002"


def test_what_a_killed_process_left_unfinished_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".partial-000000000007").mkdir()
    (tmp_path / ".partial-000000000007" / "state.safetensors").write_bytes(b"half")
    save(tmp_path, 9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000000009"]
