from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_runs import write_run

from gsprune.cli import main

pytest.importorskip("procgen")


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def test_without_a_display_an_mp4_and_a_gif_are_written_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install '.[play]'")
    run = write_run(tmp_path / "run", sparsity=0.5)
    assert main(["play", str(run), "--seconds", "1", "--fps", "8", "--scale", "1"]) == 0
    out = capsys.readouterr().out
    assert "there is no display: writing files instead of opening a window" in out
    assert f"{run / 'play.mp4'} (8 frames, 1.0 s" in out
    assert (run / "play.mp4").stat().st_size > 0
    assert (run / "play.gif").read_bytes()[:4] == b"GIF8"


def test_two_runs_are_side_by_side_and_a_seed_repeats(tmp_path: Path) -> None:
    dense, run = write_run(tmp_path / "dense"), write_run(tmp_path / "run", sparsity=0.5)
    frames = []
    for seed in (5, 5, 6):
        out = tmp_path / "film.gif"
        options = ["--beside", str(dense), "--seconds", "0.5", "--scale", "2", "--out", str(out), "--seed", str(seed)]
        assert main(["play", str(run), *options]) == 0
        with Image.open(out) as film:
            assert film.width >= 2 * 240
            film.seek(3)
            frames.append(np.asarray(film.convert("RGB"), np.int64)[-130:])  # below the captions
    # The milliseconds vary in the captions, and with them a little the palette.
    assert np.abs(frames[0] - frames[1]).mean() < 4 < np.abs(frames[0] - frames[2]).mean()
    assert not (run / "play.gif").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "`episodes` must be at least 1, got 0"),
        (["--seconds", "0"], "`seconds` must be above 0 and finite, got 0.0"),
        (["--scale", "0"], "`scale` must be at least 1, got 0"),
        (["--out", "film.avi"], "`out` must end in .mp4 or .gif, got 'film.avi'"),
    ],
)
def test_bad_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["play", str(write_run(tmp_path / "run")), *words]) == 2
    assert message in capsys.readouterr().err


def test_runs_of_different_games_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", env_id="maze")
    assert main(["play", str(run), "--beside", str(other)]) == 2
    assert "`beside` must be a run with the same `env_id`, 'bigfish', got 'maze'" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
