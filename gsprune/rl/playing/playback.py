"""Plays episodes with trained agents and draws them as pictures."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from gsprune.checks import check_number, check_whole
from gsprune.engines.timing import torch_threads
from gsprune.rl.playing.picture import Pictures
from gsprune.rl.playing.player import Player
from gsprune.rl.playing.rollout import Levels, Moment, played, side_by_side

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Film", "PlayConfig", "drawn", "moments"]


@dataclass(frozen=True)
class PlayConfig:
    """Options of a playback.

    Attributes:
        levels: "train" for the training levels, "test" for all levels.
        seed: seed of levels and actions, >= 0.
        episodes: episodes of each agent, >= 1; None plays until the time is up.
        seconds: the maximum length.
        fps: environment steps per second.
        scale: picture pixels per pixel of a frame, in both directions.
    """

    levels: Levels = "test"
    seed: int = 0
    episodes: int | None = None
    seconds: float = 20.0
    fps: int = 15
    scale: int = 4

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, at_least=0)
        if self.episodes is not None:
            check_whole("episodes", self.episodes, at_least=1)
        check_number("seconds", self.seconds, above=0, below=math.inf)
        check_whole("fps", self.fps, at_least=1)
        check_whole("scale", self.scale, at_least=1)

    @property
    def frames(self) -> int:
        """The maximum number of pictures."""
        return max(1, round(self.seconds * self.fps))


@dataclass(frozen=True)
class Film:
    """At least one picture. They are drawn during iteration, because the frames need far less memory."""

    players: Sequence[Player]
    moments: Sequence[tuple[Moment, ...]]
    scale: int

    def __len__(self) -> int:
        return len(self.moments)

    def __iter__(self) -> Iterator[Image]:
        return drawn(self.players, self.moments, self.scale)


def moments(players: Sequence[Player], config: PlayConfig) -> Generator[tuple[Moment, ...], None, None]:
    """Play with all agents side by side, on one thread, so that episodes do not depend on the number of cores."""
    with ExitStack() as stack:
        stack.enter_context(torch_threads(1))
        streams = [
            stack.enter_context(closing(played(player.agent, config.levels, config.seed, config.episodes)))
            for player in players
        ]
        yield from islice(side_by_side(streams), config.frames)


def drawn(players: Sequence[Player], moments: Iterable[tuple[Moment, ...]], scale: int) -> Iterator[Image]:
    """Draw a picture of every moment; all have the same size, with even sides."""
    pictures = None
    for moment in moments:
        pictures = pictures or Pictures(players, moment, scale)
        yield pictures.draw(moment)
