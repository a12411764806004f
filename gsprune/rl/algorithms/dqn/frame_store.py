"""The frames of a replay buffer: a table of uint8 frames in memory or in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gsprune.arrays import AnyArray, IntArray, Uint8Array
from gsprune.errors import CheckpointError, GspruneError

__all__ = ["FrameStore"]


class FrameStore:
    """A table of `rows` times `columns` frames: a row for each vector step, a column for each environment.

    In a file the frames outlive the process. The kernel writes its pages back at any time, so after a crash the file is
    *ahead* of the last checkpoint: newer frames have replaced the oldest rows. The replay buffer has spare rows for
    this (see `gsprune.rl.algorithms.dqn.replay`).

    Attributes:
        path: the file; None in memory.
        is_reopened: True if the file existed before.
    """

    def __init__(self, rows: int, columns: int, frame_shape: tuple[int, ...], path: Path | None = None) -> None:
        """Open the table; an existing file of the right size keeps its content.

        Args:
            rows: number of rows, >= 1.
            columns: frames per row, >= 1.
            frame_shape: shape of one frame.
            path: file that holds the frames; None keeps them in memory.

        Raises:
            ValueError: a size is < 1.
            CheckpointError: the file exists with another size.
            GspruneError: the disk has no room for the file (which is reserved at once: a memory map that hits a full
                disk later would kill the process).
        """
        if rows < 1 or columns < 1:
            raise ValueError(f"`rows` and `columns` must be at least 1, got {rows} and {columns}")
        self.rows = rows
        self.columns = columns
        self.frame_shape = frame_shape
        self.path = path
        self.is_reopened = path is not None and path.exists()
        shape = (rows * columns, int(np.prod(frame_shape, dtype=np.int64)))
        self._map: np.memmap[tuple[int, ...], np.dtype[np.uint8]] | None = None
        self._frames: Uint8Array
        if path is None:
            self._frames = np.empty(shape, dtype=np.uint8)
        else:
            _reserve(path, shape[0] * shape[1])
            self._map = np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)
            self._frames = self._map.view(np.ndarray)

    @property
    def nbytes(self) -> int:
        """Size of the frames in bytes."""
        return self._frames.nbytes

    @property
    def index_nbytes(self) -> int:
        """Memory of everything but the frames: none."""
        return 0

    def write(self, row: int, frames: Uint8Array) -> None:
        """Store one row of frames: (columns, *frame_shape) uint8."""
        first = row * self.columns
        self._frames[first : first + self.columns] = frames.reshape(self.columns, -1)

    def write_column(self, column: int, frames: Uint8Array) -> None:
        """Store one column of frames: (rows, *frame_shape) uint8."""
        self._frames[column :: self.columns] = frames.reshape(self.rows, -1)

    def gather(self, rows: IntArray, columns: IntArray, out: Uint8Array) -> Uint8Array:
        """Copy the frames at (B,) rows and columns to `out`, (B, *frame_shape) uint8 and contiguous; return `out`.

        Callers should reuse `out`: the page faults of a new block take longer than the copy.
        """
        # Any mode but "raise" writes straight into `out`; the indices are in range.
        flat = out.reshape(len(rows), self._frames.shape[1])
        np.take(self._frames, rows * self.columns + columns, axis=0, out=flat, mode="clip")
        return out

    def flush(self) -> None:
        """Write the file's pages to disk, so that they survive a power cut."""
        if self._map is not None:
            self._map.flush()

    def state_dict(self) -> dict[str, AnyArray]:
        """Return nothing: there is no state besides the frames."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: there is no state besides the frames."""


def _reserve(path: Path, size: int) -> None:
    """Make sure that a file of `size` bytes exists and that the disk has room for all of it."""
    if path.exists():
        found = path.stat().st_size
        if found != size:
            raise CheckpointError(
                f"the replay file {str(path)!r} has {found} bytes, this configuration needs {size}: "
                "resume with the options of the run that wrote it, or delete the file"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise GspruneError(
            f"no room for the replay file {str(path)!r} of {size / 1e9:.2f} GB ({error.strerror}): "
            "lower the replay capacity, keep the replay in memory, or choose a run folder on a larger disk"
        ) from error
