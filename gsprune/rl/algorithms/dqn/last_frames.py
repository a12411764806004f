"""The last observations of truncated episodes, which no row of a replay buffer holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gsprune.arrays import BoolArray, IntArray, Uint8Array
from gsprune.rl.training.truncation import Truncated

__all__ = ["LastFrames"]


class LastFrames:
    """The last frame of each truncated episode of a replay; episodes are long, so these frames are few.

    Attributes:
        truncated: (rows, N) bool, True where a time limit ended an episode. Its last frame is stored.
    """

    def __init__(self, rows: int, num_envs: int, frame_shape: tuple[int, ...]) -> None:
        """Create an empty store."""
        self.truncated: BoolArray = np.zeros((rows, num_envs), np.bool_)
        self._frame_shape = frame_shape
        self._frames: dict[tuple[int, int], Uint8Array] = {}

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.truncated.nbytes + len(self._frames) * int(np.prod(self._frame_shape, dtype=np.int64))

    def put(self, row: int, episodes: Truncated | None) -> None:
        """Replace the frames of a row by those of the episodes that its step truncated."""
        for env in np.flatnonzero(self.truncated[row]).tolist():
            del self._frames[row, env]
        self.truncated[row] = False
        if episodes is None:
            return
        self.truncated[row, episodes.envs] = True
        for env, frame in zip(episodes.envs.tolist(), episodes.observations, strict=True):
            self._frames[row, env] = np.array(frame)  # a copy: a view would keep the whole batch in memory

    def fill(
        self, next_frames: Uint8Array, window: IntArray, envs: IntArray, ended: BoolArray, truncated: BoolArray
    ) -> None:
        """Put the last frames of episodes in place of frames from the next episode.

        Args:
            next_frames: (B, *frame_shape), the frames after the windows; changed where the first end of a window is a
                truncation.
            window: (n, B) rows of the windows' steps.
            envs: (B,) their environments.
            ended: (n, B) where an episode ended.
            truncated: (n, B) where a time limit ended it.
        """
        if not truncated.any():
            return
        columns = np.arange(len(envs))
        first_end = ended.argmax(axis=0)
        for column in np.flatnonzero(truncated[first_end, columns]).tolist():
            row = int(window[first_end[column], column])
            next_frames[column] = self._frames[row, int(envs[column])]

    def state_dict(self) -> dict[str, npt.NDArray[np.generic]]:
        """The frames in the order of their rows and environments, and where they belong."""
        positions = np.argwhere(self.truncated)
        frames = np.empty((len(positions), *self._frame_shape), np.uint8)
        for number, (row, env) in enumerate(positions.tolist()):
            frames[number] = self._frames[row, env]
        return {"truncated": self.truncated.copy(), "last_frames": frames}

    def load_state_dict(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Go on from a `state_dict`. Without frames in it (an older checkpoint), truncated episodes count as ended."""
        self.truncated[:] = state.get("truncated", False)
        positions = np.argwhere(self.truncated).tolist()
        self._frames = {
            (row, env): np.array(frame, np.uint8)
            for (row, env), frame in zip(positions, state.get("last_frames", ()), strict=True)
        }
