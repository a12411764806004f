from __future__ import annotations

import sys

import pytest
from PIL import Image

from gsprune.rl.playing.window import no_window, show


def test_the_reason_for_no_window_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform == "linux":
        assert no_window() == "there is no display"
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert no_window() == "pygame is not installed"


def test_a_window_shows_all_pictures_or_ends_when_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame", reason="pygame is not installed: pip install '.[play]'")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("DISPLAY", ":99")
    assert no_window() == "there is no display"
    pictures = [Image.new("RGB", (48, 32))] * 4
    assert show(pictures, 1000, "run") == 4

    def closed_after_two():  # type: ignore[no-untyped-def]
        yield from pictures[:2]
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        yield from pictures

    assert show(closed_after_two(), 1000, "run") == 3
