"""Pictures of agents side by side, each with a caption above it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsprune.arrays import Uint8Array
from gsprune.errors import needs
from gsprune.rl.playing.player import Player
from gsprune.rl.playing.rollout import Moment

with needs("pillow", "play"):
    from PIL import Image, ImageDraw, ImageFont

__all__ = ["Pictures", "newest_picture"]

_MIN_WIDTH = 240  # pixels, for the text
_MARGIN = 8
_BACKGROUND = (24, 26, 30)
_TITLE_COLOUR = (255, 255, 255)
_TEXT_COLOUR = (190, 196, 204)


class Pictures:
    """Draws moments of a fixed set of players. All pictures have the same size."""

    def __init__(self, players: Sequence[Player], first: Sequence[Moment], scale: int) -> None:
        """Compute the layout from the first moment of each player; `scale` enlarges frames in both directions."""
        self._players = players
        self._scale = scale
        heights, widths = zip(*(moment.frame.shape[1:] for moment in first), strict=True)
        self._panel = max(_MIN_WIDTH, scale * max(widths))
        text = max(11, self._panel // 20)
        self._font = ImageFont.load_default(size=text)
        self._line = int(text * 1.4)
        lines = max(len(self._caption_lines(player, moment)) for player, moment in zip(players, first, strict=True))
        self._top = _MARGIN + lines * self._line + _MARGIN // 2
        # H.264 needs even sides.
        width = len(players) * self._panel + (len(players) + 1) * _MARGIN
        height = self._top + scale * max(heights) + _MARGIN
        self.size = (width + width % 2, height + height % 2)

    def draw(self, moments: Sequence[Moment]) -> Image.Image:
        """The picture of one moment of each player."""
        picture = Image.new("RGB", self.size, _BACKGROUND)
        pen = ImageDraw.Draw(picture)
        for index, (player, moment) in enumerate(zip(self._players, moments, strict=True)):
            left = _MARGIN + index * (self._panel + _MARGIN)
            for number, text in enumerate(self._caption_lines(player, moment)):
                colour = _TITLE_COLOUR if number == 0 else _TEXT_COLOUR
                pen.text((left, _MARGIN // 2 + number * self._line), text, fill=colour, font=self._font)
            frame = Image.fromarray(newest_picture(moment.frame, player.agent.environment.stack))
            side = (frame.width * self._scale, frame.height * self._scale)
            frame = frame.resize(side, Image.Resampling.NEAREST)
            picture.paste(frame, (left + (self._panel - frame.width) // 2, self._top))
        return picture

    def _caption_lines(self, player: Player, moment: Moment) -> list[str]:
        """The caption in lines that fit the panel."""
        lines = []
        for text in player.caption(moment):
            line = ""
            for word in text.split():
                longer = f"{line} {word}" if line else word
                if line and self._font.getlength(longer) > self._panel:
                    lines.append(line)
                    longer = word
                line = longer
            lines.append(line)
        return lines


def newest_picture(frame: Uint8Array, stack: int = 1) -> Uint8Array:
    """The newest picture of an observation, as (H, W, 3).

    Args:
        frame: (C, H, W), the planes of one picture after those of the other; the newest picture is last.
        stack: number of pictures. Three planes are RGB, four are RGBA. Of any other number the last is shown in grey.
    """
    picture = frame[-(len(frame) // stack) :]
    planes = picture[:3] if len(picture) in (3, 4) else np.repeat(picture[-1:], 3, axis=0)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))
