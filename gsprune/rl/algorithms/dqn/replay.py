"""Prioritised n-step replay. Images are stored once as uint8. Stacks, windows and next observations are gathered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsprune.arrays import BoolArray, Float32Array, IntArray, Uint8Array
from gsprune.errors import CheckpointError
from gsprune.rl.algorithms.dqn.frame_store import FrameStore
from gsprune.rl.algorithms.dqn.last_frames import LastFrames
from gsprune.rl.algorithms.dqn.losses import importance_weights, n_step_returns, priorities
from gsprune.rl.algorithms.dqn.stack_store import StackStore
from gsprune.rl.algorithms.dqn.sum_tree import SumTree
from gsprune.rl.training.truncation import Truncated

__all__ = ["PrioritizedReplay", "ReplayBatch", "ReplayOptions"]


@dataclass(frozen=True)
class ReplayOptions:
    """Size and exponents of a replay buffer.

    Attributes:
        capacity: transitions kept over all environments.
        n_step: length of the windows.
        gamma: discount per step.
        alpha: exponent of the priorities; 0 samples uniformly.
        beta: exponent of the importance weights; 0 gives equal weights.
        eps: added to every |error|.
    """

    capacity: int = 1_000_000
    n_step: int = 3
    gamma: float = 0.99
    alpha: float = 0.5
    beta: float = 0.5
    eps: float = 1e-6


@dataclass(frozen=True)
class ReplayBatch:
    """A sampled batch; every array has B rows. The frames are overwritten by the next batch of the same size.

    Attributes:
        observations: (B, *frame_shape) uint8, the window's first observation.
        actions: (B,) int64, taken there.
        returns: (B,) float32, discounted rewards of the window.
        discounts: (B,) float32, gamma^n; 0 where the game ended inside the window; gamma^m where a time limit ended
            the episode after m steps.
        next_observations: (B, *frame_shape) uint8, the n-th observation, or the last one before a time limit (of
            another episode where the discount is 0).
        weights: (B,) float32 importance weights of mean 1.
        leaves: (B,) int64, leaves of the sum tree, for `PrioritizedReplay.update`.
    """

    observations: Uint8Array
    actions: IntArray
    returns: Float32Array
    discounts: Float32Array
    next_observations: Uint8Array
    weights: Float32Array
    leaves: IntArray


class PrioritizedReplay:
    """The last `capacity` transitions of `num_envs` environments that step together.

    The vector step of time t is in row ``t mod rows``. The window that starts at t can be sampled from step t + n on.
    The end of an episode cuts the return of a window, so the last steps of an episode are sampled like all others. The
    last observation before a time limit is in no row; `LastFrames` has it. The sum tree has one leaf per row and
    environment. Leaves of steps outside [newest - capacity, newest - n] have weight zero.

    Where observations are stacks of the last images, every image is stored once. Batches are the same as if whole
    stacks were stored.

    With `path` the frames are in a memory-mapped file, and everything else is in the checkpoint (`state_dict`). After
    a crash the file is ahead of the checkpoint. So there are `spare_steps` more rows than are sampled, and steps after
    a checkpoint overwrite only rows that it does not need. The run must keep the last two checkpoints, and write one
    whenever `needs_checkpoint` is true.

    Attributes:
        frames: the store of the observations, in memory or in a file.
    """

    def __init__(
        self,
        options: ReplayOptions,
        num_envs: int,
        frame_shape: tuple[int, ...],
        path: Path | None = None,
        spare_steps: int = 0,
        stack: int = 1,
    ) -> None:
        """An empty buffer; call `load_state_dict` to go on with the content of `path`.

        Args:
            options: sizes and exponents.
            num_envs: environments N.
            frame_shape: shape of one observation (uint8); (C, H, W) for a stack.
            path: file of the frames; None keeps them in memory.
            spare_steps: number of extra rows with `path`: twice the vector steps between two checkpoints, or more.
            stack: images in one observation, the oldest first; of each image C / `stack` channels are stored.

        Raises:
            ValueError: the capacity is too small for one window, a file has no spare rows, or `stack` does not divide
                the channels.
            CheckpointError: the file is of another configuration.
            GspruneError: the disk is full.
        """
        live = options.capacity // num_envs
        if live <= options.n_step:
            raise ValueError(
                f"`capacity` must be more than num_envs * n_step = {num_envs * options.n_step}, got {options.capacity}"
            )
        if path is not None and spare_steps < 2:
            raise ValueError(f"`spare_steps` must be at least 2 for a replay in a file, got {spare_steps}")
        self.options = options
        self.num_envs = num_envs
        self._live = live
        self._rows = live + (spare_steps if path is not None else 0)
        self.frames: FrameStore | StackStore
        if stack == 1:
            self.frames = FrameStore(self._rows, num_envs, frame_shape, path)
        else:
            self.frames = StackStore(self._rows, num_envs, frame_shape, stack, path)
        self._stack = stack
        self._actions = np.zeros((self._rows, num_envs), dtype=np.int32)
        self._rewards = np.zeros((self._rows, num_envs), dtype=np.float32)
        self._ended = np.zeros((self._rows, num_envs), dtype=np.bool_)
        self._last_frames = LastFrames(self._rows, num_envs, frame_shape)
        self._tree = SumTree(self._rows * num_envs)
        self._max_priority = 1.0
        self._steps = 0
        self._out: Uint8Array = np.empty((2, 0, *frame_shape), dtype=np.uint8)
        self._saved = 0  # steps at the last checkpoint

    @property
    def size(self) -> int:
        """Number of transitions that can be sampled."""
        return max(0, min(self._steps, self._live) - self.options.n_step) * self.num_envs

    @property
    def index_nbytes(self) -> int:
        """Memory of everything but the frames, in bytes."""
        small = self._actions.nbytes + self._rewards.nbytes + self._ended.nbytes
        return self.frames.index_nbytes + small + self._last_frames.nbytes + self._tree.nbytes

    def needs_checkpoint(self, upcoming: int) -> bool:
        """True if a checkpoint must be written before `upcoming` more steps are added.

        At most half of the spare rows are written between two checkpoints. So the checkpoint before the last one still
        has all its frames.

        Args:
            upcoming: vector steps until the next opportunity, at most half of `spare_steps`.
        """
        return self.frames.path is not None and 2 * (self._steps + upcoming - self._saved) > self._rows - self._live

    def add(
        self,
        observations: Uint8Array,
        actions: IntArray,
        rewards: Float32Array,
        ended: BoolArray,
        truncated: Truncated | None = None,
    ) -> None:
        """Store one vector step.

        Args:
            observations: (N, *frame_shape) uint8, before the actions.
            actions: (N,) int64.
            rewards: (N,) float32, after the actions.
            ended: (N,) bool, True if the episode ended with this step; the next step's observation is then the first of
                a new episode.
            truncated: those of the ended episodes that a time limit ended.

        Raises:
            GspruneError: the observations are not stacks of the last images; nothing is stored.
        """
        row = self._steps % self._rows
        self.frames.write(row, observations)
        self._actions[row] = actions
        self._rewards[row] = rewards
        self._ended[row] = ended
        self._last_frames.put(row, truncated)
        self._set_priorities(self._steps - self._live, 0.0)
        self._set_priorities(self._steps - self.options.n_step, self._max_priority)
        self._steps += 1

    def cut_episodes(self) -> None:
        """End all episodes with the newest step.

        A resumed run calls this if its environments cannot save their states, because they begin new episodes.
        """
        if self._steps > 0:
            self._ended[(self._steps - 1) % self._rows] = True

    def _set_priorities(self, time: int, priority: float) -> None:
        """Give all transitions of a logical time the same priority."""
        if time >= 0:
            self._tree.set_range(time % self._rows * self.num_envs, np.full(self.num_envs, priority))

    def sample(self, batch_size: int, rng: np.random.Generator) -> ReplayBatch:
        """Draw transitions in proportion to their priorities.

        Raises:
            ValueError: nothing can be sampled yet.
        """
        leaves = self._tree.sample(batch_size, rng)
        if self._out.shape[1] != batch_size:
            self._out = np.empty((2, batch_size, *self.frames.frame_shape), dtype=np.uint8)
        rows, envs = np.divmod(leaves, self.num_envs)
        window = (rows + np.arange(self.options.n_step)[:, None]) % self._rows  # (n, B)
        ended, truncated = self._ended[window, envs], self._last_frames.truncated[window, envs]
        returns, discounts = n_step_returns(self._rewards[window, envs], ended, truncated, self.options.gamma)
        next_observations = self.frames.gather((rows + self.options.n_step) % self._rows, envs, self._out[1])
        self._last_frames.fill(next_observations, window, envs, ended, truncated)
        return ReplayBatch(
            observations=self.frames.gather(rows, envs, self._out[0]),
            actions=self._actions[rows, envs].astype(np.int64),
            returns=returns,
            discounts=discounts,
            next_observations=next_observations,
            weights=importance_weights(self._tree.leaves[leaves], self.options.beta),
            leaves=leaves,
        )

    def frames_at(self, positions: IntArray) -> Uint8Array:
        """(B, *frame_shape) uint8 observations at (B,) positions in [0, size). Position 0 is the oldest step's."""
        oldest = max(0, self._steps - self._live)
        times, envs = np.divmod(positions, self.num_envs)
        out = np.empty((len(positions), *self.frames.frame_shape), dtype=np.uint8)
        return self.frames.gather((oldest + times) % self._rows, envs, out)

    def update(self, leaves: IntArray, errors: Float32Array) -> None:
        """Set the priorities of sampled transitions to their new errors.

        Args:
            leaves: (B,) int64, `ReplayBatch.leaves`.
            errors: (B,) float32 errors δ, finite.
        """
        weights = priorities(errors, self.options.alpha, self.options.eps)
        self._max_priority = max(self._max_priority, float(weights.max()))
        # Steps added since the batch was drawn may have replaced some of its transitions. Their priority stays 0.
        alive = self._tree.leaves[leaves] > 0.0
        self._tree.set(leaves[alive], weights[alive])

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything but the frames."""
        return {
            "layout": self._layout(),
            "steps": self._steps,
            "max_priority": self._max_priority,
            "actions": self._actions.copy(),
            "rewards": self._rewards.copy(),
            "terminated": self._ended.copy(),
            **self._last_frames.state_dict(),
            "priorities": self._tree.leaves.copy(),
            **self.frames.state_dict(),
        }

    def checkpointed(self) -> None:
        """Note that the present `state_dict` is part of a checkpoint."""
        self._saved = self._steps

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, with the frames of this buffer's file.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: this buffer's frames are in memory or in a new file, so the checkpoint's are lost.
            CheckpointError: the state is that of a buffer with another layout; nothing is changed.
        """
        if not self.frames.is_reopened:
            raise ValueError("the frames of this checkpoint are gone: give the `path` of their file")
        if list(state["layout"]) != self._layout():
            raise CheckpointError(
                f"the checkpoint's replay has the layout {list(state['layout'])}, this run's {self._layout()} "
                "(live steps, rows, environments, n, frame shape, images per stack if above 1): resume with the options"
                " of the run that wrote it"
            )
        self._steps = int(state["steps"])
        self._max_priority = float(state["max_priority"])
        self._actions[:] = state["actions"]
        self._rewards[:] = state["rewards"]
        self._ended[:] = state["terminated"]
        self._last_frames.load_state_dict(state)
        self._tree.set_range(0, np.asarray(state["priorities"], dtype=np.float64))
        self.frames.load_state_dict(state)
        self._saved = self._steps

    def _layout(self) -> list[int]:
        layout = [self._live, self._rows, self.num_envs, self.options.n_step, *self.frames.frame_shape]
        return layout if self._stack == 1 else [*layout, self._stack]
