"""Storage of a replay buffer's stacks. Every image is stored once, and stacks are rebuilt when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gsprune.arrays import AnyArray, BoolArray, IntArray, Uint8Array
from gsprune.errors import GspruneError
from gsprune.rl.algorithms.dqn.frame_store import FrameStore

__all__ = ["StackStore"]


class StackStore:
    """A ring of `rows` vector steps of `num_envs` stacks. Only the newest image of each stack is stored.

    The older images of a stack are those of the rows before. At the start of an episode there are none; the
    environment fills such stacks with black images (ale-py) or with copies of the first one (gymnasium). `write`
    compares each stack with the one before, byte by byte. So stacks are rebuilt as they were, whatever the
    environment does when an episode ends, and observations that are no stacks are an error.

    The oldest row needs images of the `stack` - 1 steps before it, so the ring of images is longer by as many rows.
    `path`, `is_reopened` and `nbytes` are those of this ring, a `FrameStore`.
    """

    def __init__(
        self, rows: int, num_envs: int, frame_shape: tuple[int, ...], stack: int, path: Path | None = None
    ) -> None:
        """Open the ring of stacks of shape (C, H, W); `path` and its errors are those of `FrameStore`.

        Raises:
            ValueError: the channels are not a multiple of `stack`, the number of images, >= 2.
        """
        channels, *sides = frame_shape
        if channels % stack:
            raise ValueError(f"`stack` must divide the {channels} channels of an observation, got {stack}")
        self.rows = rows
        self.num_envs = num_envs
        self.frame_shape = frame_shape
        self.stack = stack
        # A row for each environment: the images of a stack are neighbours, which makes copying them twice as fast.
        self._images = FrameStore(num_envs, rows + stack - 1, (channels // stack, *sides), path)
        self.path = path
        self.is_reopened = self._images.is_reopened
        self.nbytes = self._images.nbytes
        self._newest = np.zeros(rows, dtype=np.int64)  # the column of the newest images
        # Images of each stack that lie in the ring, its own row's included; 0 where nothing is stored yet.
        self._depths = np.zeros((rows, num_envs), dtype=np.min_scalar_type(stack + 1))
        # True where black images fill the rest of a stack, False where copies of its oldest stored image do.
        self._black = np.zeros((rows, num_envs), dtype=np.bool_)
        self._previous = np.empty((num_envs, *frame_shape), dtype=np.uint8)  # a buffer
        self._ages = np.arange(stack)[::-1].copy()  # of the images in a stack, in steps

    @property
    def index_nbytes(self) -> int:
        """Memory of everything but the images, in bytes."""
        return self._newest.nbytes + self._depths.nbytes + self._black.nbytes

    def write(self, row: int, frames: Uint8Array) -> None:
        """Store one vector step, (num_envs, *frame_shape) uint8, after that of the row before.

        Raises:
            GspruneError: an observation neither continues the stack before it nor begins one; nothing is written.
        """
        stacks = frames.reshape(self.num_envs, self.stack, -1)
        before = (row - 1) % self.rows
        if self._depths[before].any():
            self._depths[row], self._black[row] = self._next_depths(before, stacks)
            newest = (self._newest[before] + 1) % self._images.columns
        else:
            # The first step may come in the midst of an episode: its older images get columns of their own.
            newest = self.stack - 1
            for older in range(newest):
                self._images.write_column(older, stacks[:, older])
            self._depths[row], self._black[row] = self.stack, False
        self._images.write_column(newest, stacks[:, -1])
        self._newest[row] = newest

    def _next_depths(self, before: int, stacks: Uint8Array) -> tuple[AnyArray, BoolArray]:
        """The depths of stacks that come after row `before`, and where black images fill their rest."""
        envs = np.arange(self.num_envs)
        previous = self.gather(np.full(self.num_envs, before), envs, self._previous).reshape(stacks.shape)
        older = stacks[:, :-1]
        continues = (older == previous[:, 1:]).all(axis=(1, 2))
        depths = np.minimum(self._depths[before] + 1, self.stack)
        if continues.all():
            return depths, self._black[before]
        black = ~older.any(axis=(1, 2))
        unlike = ~(continues | black | (older == stacks[:, -1:]).all(axis=(1, 2)))
        if unlike.any():
            raise GspruneError(
                f"the observation of environment {unlike.argmax()} is described as a stack of {self.stack} images, but"
                " its older images are neither those of the observation before nor, as at the start of an episode,"
                " black or copies of the newest; the environment's provider must describe it with `stack` 1"
            )
        return np.where(continues, depths, 1), np.where(continues, self._black[before], black)

    def gather(self, rows: IntArray, envs: IntArray, out: Uint8Array) -> Uint8Array:
        """Rebuild stacks of (B,) rows and environments in `out`, (B, *frame_shape) uint8 and contiguous; return it."""
        depths = self._depths[rows, envs]
        are_whole = depths.min(initial=self.stack) == self.stack
        ages = self._ages if are_whole else np.minimum(self._ages, depths[:, None].astype(np.int64) - 1)
        columns = (self._newest[rows][:, None] - ages) % self._images.columns
        images = out.reshape(len(rows) * self.stack, *self._images.frame_shape)
        self._images.gather(envs.repeat(self.stack), columns.ravel(), images)
        if not are_whole:
            images[(self._black[rows, envs][:, None] & (self._ages >= depths[:, None])).ravel()] = 0
        return out

    def flush(self) -> None:
        """Write the file's pages to disk."""
        self._images.flush()

    def state_dict(self) -> dict[str, AnyArray]:
        """Copies of everything but the images."""
        return {"newest": self._newest.copy(), "depths": self._depths.copy(), "black": self._black.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._newest[:] = state["newest"]
        self._depths[:] = state["depths"]
        self._black[:] = state["black"]
