"""A window that shows pictures, made with pygame, which gymnasium's environments use, too."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["no_window", "show"]

_NO_SCREEN = ("dummy", "offscreen")  # SDL's drivers without a screen


def no_window() -> str | None:
    """The reason why no window can be opened here; None if one can."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display"
    try:
        pygame = _pygame()
    except ImportError:
        return "pygame is not installed"
    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        pygame.display.quit()
    except pygame.error as error:
        return f"the display cannot be opened ({error})"
    return "there is no display" if driver in _NO_SCREEN else None


def show(pictures: Iterable[Image], fps: int, title: str) -> int:
    """Show pictures in a window until they end, or until it is closed or Escape is pressed; return how many were shown.

    All pictures have the same size. At most `fps` are shown per second.
    """
    pygame = _pygame()
    pygame.display.init()
    try:
        pygame.display.set_caption(title)
        clock = pygame.time.Clock()
        shown = 0
        for picture in pictures:
            window = pygame.display.get_surface() or pygame.display.set_mode(picture.size)
            window.blit(pygame.image.frombytes(picture.tobytes(), picture.size, "RGB"), (0, 0))
            pygame.display.flip()
            shown += 1
            if any(_closes(pygame, event) for event in pygame.event.get()):
                break
            clock.tick(fps)
        return shown
    finally:
        pygame.display.quit()


def _closes(pygame: Any, event: Any) -> bool:
    return bool(event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE))


def _pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    return pygame
