from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from gsprune.errors import MissingExtraError
from gsprune.rl.playing.video import check_video_path, write_video


def pictures(count: int = 5) -> list[Image.Image]:
    return [Image.new("RGB", (48, 32), (50 * index, 20, 20)) for index in range(count)]


def test_a_gif_has_all_frames_their_time_and_repeats(tmp_path: Path) -> None:
    write_video(tmp_path / "film.gif", pictures(), fps=10)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (5, (48, 32), 100, 0)
        film.seek(4)
        assert film.convert("RGB").getpixel((0, 0)) == pytest.approx((200, 20, 20), abs=4)


def test_an_mp4_has_all_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install '.[play]'")
    write_video(tmp_path / "film.mp4", pictures(), fps=10)
    with av.open(str(tmp_path / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 5
    assert frames[4][0, 0].tolist() == pytest.approx([200, 20, 20], abs=12)


def test_a_path_is_refused_before_anything_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"`out` must end in .mp4 or .gif, got '.*film.avi'"):
        check_video_path(tmp_path / "film.avi")
    with pytest.raises(ValueError, match="`out` must be in a folder that exists"):
        check_video_path(tmp_path / "none" / "film.gif")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"'av', which is not installed; .*'\.\[play\]'"):
        check_video_path(tmp_path / "film.mp4")
