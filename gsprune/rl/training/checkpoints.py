"""Checkpoints of a training: its whole state, so that a resumed training continues as if it had never stopped.

A checkpoint is a folder ``checkpoints/step-000001024`` with the network and its optimizer (``model.safetensors``, see
`gsprune.save`), ``state.json``, ``arrays.npz`` and, written last, ``manifest.json`` with the SHA-256 of each file. It
is written under another name, flushed to disk and then renamed, so a folder of that name is complete. The manifest
shows if a file was damaged later. The last two checkpoints are kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import gsprune
from gsprune.errors import CheckpointError

__all__ = ["TrainingState", "checkpoint_folders", "latest_checkpoint", "load_state", "save_checkpoint"]

MODEL_FILE = "model.safetensors"

_KEPT = 2
_SEPARATOR = "/"
_TENSOR = "<tensor>"


@dataclass
class TrainingState:
    """The state of a training besides network and optimizer.

    Attributes:
        values: JSON values.
        arrays: arrays by name. A name may begin with a part, as in "envs/games".
    """

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def put(self, part: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add the arrays of one part."""
        self.arrays.update({f"{part}{_SEPARATOR}{name}": array for name, array in arrays.items()})

    def get(self, part: str) -> dict[str, npt.NDArray[Any]]:
        """The arrays of one part, without its name."""
        prefix = part + _SEPARATOR
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def put_tree(self, part: str, tree: Mapping[str, Any]) -> None:
        """Add a ``state_dict``: nested dicts and lists of tensors, numbers and strings."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        self.values[part] = _without_tensors(tree, arrays)
        self.put(part, arrays)

    def get_tree(self, part: str) -> dict[str, Any]:
        """The ``state_dict`` of one part, with tensors on the CPU."""
        tree: dict[str, Any] = _with_tensors(self.values[part], self.get(part))
        return tree


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState, **metadata: Any
) -> Path:
    """Write a checkpoint and delete all but the last two.

    Args:
        folder: the run's folder of checkpoints; created if missing.
        step: environment steps so far; names the checkpoint.
        model: the network.
        optimizer: its optimizer.
        state: everything else.
        **metadata: JSON values to store with the network.

    Returns:
        the checkpoint's folder.

    Raises:
        CheckpointError: the disk is full or cannot be written; older checkpoints are kept.
    """
    final = folder / f"step-{step:012d}"
    partial = folder / f".partial-{step:012d}"
    try:
        for unfinished in folder.glob(".partial-*"):  # left by a process that was killed
            shutil.rmtree(unfinished, ignore_errors=True)
        partial.mkdir(parents=True)
        gsprune.save(model, partial / MODEL_FILE, optimizer=optimizer, **metadata)
        (partial / "state.json").write_text(json.dumps(state.values))
        with (partial / "arrays.npz").open("wb") as file:
            np.savez(file, **state.arrays)
        manifest = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2))
        _flush(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush_entry(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise CheckpointError(
            f"no checkpoint could be written to {str(folder)!r}: {reason}; make room and resume with"
            f" --resume {folder.parent}"
        ) from error
    for old in checkpoint_folders(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoint_folders(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*"))


def latest_checkpoint(folder: Path) -> tuple[Path, list[str]]:
    """The newest checkpoint that is undamaged.

    Args:
        folder: the run's folder of checkpoints.

    Returns:
        its folder, and a line about every newer checkpoint that is damaged.

    Raises:
        CheckpointError: there is no undamaged checkpoint.
    """
    complaints: list[str] = []
    for candidate in reversed(checkpoint_folders(folder)):
        damage = _damage(candidate)
        if damage is None:
            return candidate, complaints
        complaints.append(f"{candidate} is damaged ({damage}); the checkpoint before it is used")
    if complaints:
        raise CheckpointError(
            f"all checkpoints in {str(folder)!r} are damaged: {'; '.join(complaints)}; start a new run"
        )
    raise CheckpointError(f"there is no checkpoint in {str(folder)!r}; start a new run")


def load_state(checkpoint: Path) -> TrainingState:
    """Load a checkpoint's state except network and optimizer, which `gsprune.load` reads from `MODEL_FILE`."""
    with np.load(checkpoint / "arrays.npz", allow_pickle=False) as arrays:
        return TrainingState(json.loads((checkpoint / "state.json").read_text()), dict(arrays))


def _without_tensors(tree: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """`tree` as JSON values. Its tensors are moved to `arrays` and replaced by their keys."""
    if isinstance(tree, torch.Tensor):
        key = str(len(arrays))
        arrays[key] = tree.detach().cpu().numpy()
        return {_TENSOR: key}
    if isinstance(tree, Mapping):
        return {str(name): _without_tensors(value, arrays) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_tensors(value, arrays) for value in tree]
    return tree


def _with_tensors(tree: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """The inverse of `_without_tensors`; tuples come back as lists."""
    if isinstance(tree, dict):
        if set(tree) == {_TENSOR}:
            return torch.from_numpy(arrays[tree[_TENSOR]])
        return {name: _with_tensors(value, arrays) for name, value in tree.items()}
    return [_with_tensors(value, arrays) for value in tree] if isinstance(tree, list) else tree


def _damage(checkpoint: Path) -> str | None:
    """A description of the damage to a checkpoint's files; None if they are undamaged."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        for name, digest in manifest.items():
            if _sha256(checkpoint / name) != digest:
                return f"{name} does not match its checksum"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _flush(folder: Path) -> None:
    """Flush every file of a folder, and the folder itself, to disk."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    _flush_entry(folder)


def _flush_entry(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
