"""Presets for `round_to`: width multiples that suit an engine.

Widths are rounded up, and groups narrower than the multiple stay as they are. So a preset never removes more than was
requested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

__all__ = ["WIDTH_MULTIPLES", "RoundTo", "WidthPreset", "multiple_of"]

WidthPreset = Literal["onnxruntime", "tensorrt-fp16", "cmsis-nn", "ethos-u"]

RoundTo = int | str | Mapping[str, int]
"""A multiple, the name of a preset, or {glob of group or layer names: multiple}."""

WIDTH_MULTIPLES: Mapping[str, int] = {
    # Blocked convolutions (NCHWc) want inputs in multiples of 4 and pad outputs to the block of 8 or 16:
    # https://github.com/microsoft/onnxruntime/issues/7442. 8 was the fastest of 1, 4, 8, 16 here: docs/guide/export.md.
    "onnxruntime": 8,
    # FP16 tensor cores: https://github.com/NVIDIA/TensorRT/issues/3876
    "tensorrt-fp16": 8,
    # The fast convolution needs inputs in multiples of 4 (and outputs in multiples of 2):
    # https://github.com/ARM-software/CMSIS-NN
    "cmsis-nn": 4,
    # Channels are stored in bricks of 16 (NHCWB16): https://gitlab.arm.com/artificial-intelligence/ethos-u/ethos-u-vela
    "ethos-u": 16,
}
"""Preset -> the multiple for which its engine needs neither padding nor a slow kernel."""


def multiple_of(round_to: RoundTo) -> int | Mapping[str, int]:
    """`round_to` with the name of a preset replaced by its multiple.

    Raises:
        ValueError: the preset is unknown.
    """
    if not isinstance(round_to, str):
        return round_to
    if round_to not in WIDTH_MULTIPLES:
        presets = ", ".join(f"{name!r} ({multiple})" for name, multiple in WIDTH_MULTIPLES.items())
        raise ValueError(f"`round_to` must be a whole number, a mapping, or one of {presets}; got {round_to!r}")
    return WIDTH_MULTIPLES[round_to]
