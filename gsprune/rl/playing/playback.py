"""Plays episodes with trained agents and draws them as pictures."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from gsprune.engines.timing import torch_threads
from gsprune.rl.playing.picture import Pictures
from gsprune.rl.playing.player import Player
from gsprune.rl.playing.rollout import Levels, Moment, episode_moments, side_by_side

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Film", "drawn", "moments"]


@dataclass(frozen=True)
class Film:
    """At least one picture. Pictures are drawn one by one during iteration, because frames need far less memory."""

    players: Sequence[Player]
    moments: Sequence[tuple[Moment, ...]]
    scale: int

    def __len__(self) -> int:
        return len(self.moments)

    def __iter__(self) -> Iterator[Image]:
        return drawn(self.players, self.moments, self.scale)


def moments(
    players: Sequence[Player], levels: Levels, seed: int, episodes: int | None, most: int
) -> Generator[tuple[Moment, ...], None, None]:
    """Play with all agents side by side, on one thread, so that episodes do not depend on the number of cores.

    Args:
        players: the agents.
        levels: "train" for the training levels, "test" for all levels.
        seed: seed of levels and actions, >= 0; all agents play the same episodes.
        episodes: episodes of each agent, >= 1; None for no limit.
        most: the maximum number of moments.
    """
    with ExitStack() as stack:
        stack.enter_context(torch_threads(1))
        rollouts = [episode_moments(player.agent, levels, seed, episodes) for player in players]
        streams = [stack.enter_context(closing(rollout)) for rollout in rollouts]
        yield from islice(side_by_side(streams), most)


def drawn(players: Sequence[Player], moments: Iterable[tuple[Moment, ...]], scale: int) -> Iterator[Image]:
    """Draw a picture of every moment; all have the same size, with even sides."""
    pictures = None
    for moment in moments:
        pictures = pictures or Pictures(players, moment, scale)
        yield pictures.draw(moment)
