"""Video files: mp4 (H.264) by PyAV, animated GIF by Pillow.

PyAV's wheels contain FFmpeg. imageio-ffmpeg cannot be used: Procgen's gym3 requires a version below 0.4, which imports
pkg_resources, but setuptools no longer has that module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gsprune.errors import needs
from gsprune.files import replacement

if TYPE_CHECKING:
    from PIL.Image import Image

    from gsprune.rl.playing.playback import Film

__all__ = ["check_video_path", "write_video"]

_PALETTE_SAMPLES = 24  # number of pictures that determine the palette of a GIF
_COLOURS = 256  # colours of a GIF; with 64 the file is a fifth smaller, but small bright objects lose their colour
_MIN_GIF_MILLISECONDS = 20  # browsers show shorter pictures for 100 ms


def check_video_path(path: Path) -> None:
    """Check that a video can be written to `path`; call this before playing.

    Raises:
        ValueError: the extension is unknown, or the folder does not exist.
        MissingExtraError: a package is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(f"`out` must end in {' or '.join(_WRITERS)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"`out` must be in a folder that exists, got {str(path)!r}; make {str(path.parent)!r} first")
    if path.suffix.lower() == ".mp4":
        with needs("av", "play"):
            import av  # noqa: F401


def write_video(path: Path, film: Film, fps: int) -> None:
    """Write a .mp4 or .gif file. An older file is replaced only when the video is complete."""
    with replacement(path) as partial:
        _WRITERS[path.suffix.lower()](partial, film, fps)


def _write_mp4(path: Path, film: Film, fps: int) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.width, stream.height = next(iter(film)).size
        stream.pix_fmt = "yuv420p"  # the only format that all browsers play
        for picture in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture))))
        container.mux(stream.encode())


def _write_gif(path: Path, film: Film, fps: int) -> None:
    """Write a GIF with one palette and without dithering, so that unchanged pixels stay equal and take no space."""
    from PIL import Image

    palette = _palette(film)
    pictures = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in film)
    duration = max(_MIN_GIF_MILLISECONDS, round(1000 / fps))
    next(pictures).save(path, "GIF", save_all=True, append_images=pictures, duration=duration, loop=0)


def _palette(film: Film) -> Image:
    """A picture with the palette that suits all pictures best."""
    from PIL import Image

    samples = list(islice(film, 0, None, -(-len(film) // _PALETTE_SAMPLES)))
    width, height = samples[0].size
    sheet = Image.new("RGB", (width, height * len(samples)))
    for index, sample in enumerate(samples):
        sheet.paste(sample, (0, index * height))
    return sheet.quantize(_COLOURS)


_WRITERS: Mapping[str, Callable[[Path, Film, int], None]] = {".mp4": _write_mp4, ".gif": _write_gif}
