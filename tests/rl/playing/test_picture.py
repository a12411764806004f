from __future__ import annotations

import numpy as np

from gsprune.rl.playing.picture import colours


def test_the_newest_picture_of_a_stack_is_shown() -> None:
    stack = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 5), np.uint8)
    assert colours(stack).shape == (2, 5, 3)
    assert np.unique(colours(stack)).tolist() == [3]
    coloured = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 5), np.uint8)
    assert colours(coloured)[0, 0].tolist() == [3, 4, 5]
