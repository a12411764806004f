from __future__ import annotations

import numpy as np
import pytest

from gsprune.rl.playing.picture import newest_picture


@pytest.mark.parametrize(
    ("planes", "stack", "shown"),
    [
        (3, 1, [0, 1, 2]),
        (3, 3, [2, 2, 2]),  # three grey images, not one in colour
        (4, 4, [3, 3, 3]),
        (4, 1, [0, 1, 2]),  # with transparency
        (6, 2, [3, 4, 5]),
        (6, 6, [5, 5, 5]),
        (1, 1, [0, 0, 0]),
        (2, 1, [1, 1, 1]),
    ],
)
def test_the_newest_picture_of_a_stack_is_shown(planes: int, stack: int, shown: list[int]) -> None:
    frame = np.arange(planes, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 5), np.uint8)
    picture = newest_picture(frame, stack)
    assert picture.shape == (2, 5, 3)
    assert picture[0, 0].tolist() == shown
