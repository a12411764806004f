"""The lines of text above a picture of a playing agent."""

from __future__ import annotations

from gsprune.rl.playing.player import Player
from gsprune.rl.playing.rollout import Moment

__all__ = ["caption"]


def caption(player: Player, moment: Moment) -> list[str]:
    """Title, return so far, milliseconds per frame and parameters, widths."""
    end = " (end)" if moment.is_end else ""
    return [
        player.title,
        f"return {_rounded(moment.episode_return)}, episode {moment.episode}{end}",
        f"{player.milliseconds:.2f} ms per frame, {player.size.params:,} parameters",
        "widths " + " ".join(str(width) for width in player.size.widths.values()),
    ]


def _rounded(value: float) -> str:
    """At most two decimals; rewards of 0.1 add up to 0.30000001."""
    return f"{round(value, 2) + 0.0:g}"
