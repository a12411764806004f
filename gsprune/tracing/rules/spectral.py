"""Rules of Fourier transforms, and of views between complex numbers and pairs of real ones."""

from __future__ import annotations

from gsprune.tracing.call import Call
from gsprune.tracing.rules.registry import aten
from gsprune.tracing.shadow import Shadow
from gsprune.tracing.tape import Tape


@aten("_fft_r2c _fft_c2r _fft_c2c")
def _fourier(tape: Tape, call: Call) -> Shadow:
    """Transforms over the axes `dim`. They are linear, so channels on other axes keep their labels."""
    axes = [int(axis) % call.out.ndim for axis in call.args[1]]
    return tape.protect_along(tape.of(call.args[0]), axes, f"{call.op} has no rule for channels on its axes")


@aten("view_as_real")
def _as_real(tape: Tape, call: Call) -> Shadow:
    """Complex numbers as pairs on a new last axis."""
    return tape.of(call.args[0]).carry(lambda layer: layer[..., None])


@aten("view_as_complex")
def _as_complex(tape: Tape, call: Call) -> Shadow:
    """Pairs on the last axis as complex numbers."""
    shadow = tape.protect_along(tape.of(call.args[0]), [-1], f"{call.op} over channels")
    return shadow.carry(lambda layer: layer.squeeze(-1))
