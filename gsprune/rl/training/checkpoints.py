"""Checkpoints of a training: its whole state, so that a resumed training continues as if it had never stopped.

A checkpoint is a folder ``checkpoints/step-000001024`` with the network and its optimizer (``model.safetensors``, see
`gsprune.save`) and everything else (``state.safetensors``, in the same format). It is written under another name,
flushed to disk and then renamed, so a folder of that name is complete. Both files have checksums, which show if they
were damaged later. The last two checkpoints are kept.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gsprune
from gsprune.checkpoint.document import read_document, write_document
from gsprune.errors import CheckpointError
from gsprune.files import sync_folder

__all__ = ["MODEL_FILE", "checkpoint_folders", "latest_checkpoint", "load_state", "save_checkpoint"]

MODEL_FILE = "model.safetensors"

_STATE_FILE = "state.safetensors"
_KEPT = 2


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> Path:
    """Write a checkpoint, delete all but the last two, and return its folder.

    `state` consists of nested dicts and lists of numbers, strings, tensors and arrays.

    Raises:
        CheckpointError: the disk is full or cannot be written; older checkpoints are kept.
    """
    final = folder / f"step-{step:012d}"
    partial = folder / f".partial-{step:012d}"
    try:
        for unfinished in folder.glob(".partial-*"):  # left by a process that was killed
            shutil.rmtree(unfinished, ignore_errors=True)
        partial.mkdir(parents=True)
        gsprune.save(model, partial / MODEL_FILE, optimizer=optimizer)
        write_document(partial / _STATE_FILE, state)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync_folder(folder)
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


def latest_checkpoint(folder: Path, files: Sequence[str] = (MODEL_FILE, _STATE_FILE)) -> tuple[Path, list[str]]:
    """The newest checkpoint whose `files` are undamaged, and a line about every newer checkpoint that is damaged.

    Raises:
        CheckpointError: there is no undamaged checkpoint.
    """
    complaints: list[str] = []
    for candidate in reversed(checkpoint_folders(folder)):
        try:
            for name in files:
                read_document(candidate / name)
        except (OSError, CheckpointError) as damage:
            complaints.append(f"{candidate} is damaged ({damage}); the checkpoint before it is used")
        else:
            return candidate, complaints
    if complaints:
        raise CheckpointError(
            f"all checkpoints in {str(folder)!r} are damaged: {'; '.join(complaints)}; start a new run"
        )
    raise CheckpointError(f"there is no checkpoint in {str(folder)!r}; start a new run")


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Load a checkpoint's state except network and optimizer, which `gsprune.load` reads from `MODEL_FILE`."""
    return read_document(checkpoint / _STATE_FILE)
