"""Export the policy of a run's newest checkpoint for a device: logits or Q values of uint8 frames.

The export is checked on frames of the environment: if it chooses other actions than the agent, that is an error and no
file is written. A JSON contract next to the file has shapes, the meaning of actions, widths, training and return.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gsprune.checks import check_whole, counted
from gsprune.cli.console import console, open_agent, say
from gsprune.rl.evaluation.protocol import EVALUATION_SEED, ProtocolConfig
from gsprune.rl.exporting.frames import played_frames
from gsprune.rl.exporting.policy import QuantizedPolicy, export_policy, quantize_policy

__all__ = ["Args", "main"]

_SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune export``."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx for ONNX Runtime, TensorRT, OpenVINO and others; torch for a program of torch.export"""
    out: Path | None = None
    """the file; unset: export/policy.onnx or export/policy.pt2 in the run folder"""
    batch: Literal["dynamic", "1"] = "dynamic"
    """number of frames per call: any, or 1, which some engines require"""
    frames: int = 1000
    """frames of the environment on which outputs and greedy actions must agree with PyTorch's"""
    int8: bool = False
    """also write a statically quantised copy, and measure its loss of return; onnx only"""
    calibration_frames: int = 512
    """frames that determine the ranges of activations for int8"""
    episodes: int = 200
    """episodes for each of the float and the int8 policy; in Procgen on all levels"""
    num_envs: int = 50
    """number of parallel environments in these episodes"""
    seed: int = 0
    """seed of these episodes and their actions"""


def main(args: Args) -> None:
    """Export the policy, and print the report."""
    check_whole("frames", args.frames, at_least=1)
    if args.int8 and args.format != "onnx":
        raise ValueError("`int8` needs --format onnx, because ONNX Runtime's tools make it")
    check_whole("calibration_frames", args.calibration_frames, at_least=32)
    agent = open_agent(args.run)
    seed = EVALUATION_SEED + args.seed
    config = ProtocolConfig(agent.config, episodes=args.episodes, num_envs=args.num_envs, seed=seed)
    path = args.out or args.run / "export" / f"policy{_SUFFIX[args.format]}"
    with console.status("playing frames to check the export on"):
        frames = played_frames(agent, args.frames, config.seed)
    with console.status("exporting and checking"):
        report = export_policy(agent, args.run, path, frames, args.format, dynamic_batch=args.batch == "dynamic")
    say(str(report))
    if args.int8:
        with console.status(f"quantising, and playing {counted(args.episodes, 'episode')} with each of both"):
            calibration = played_frames(agent, args.calibration_frames, config.seed + 1)
            quantized = quantize_policy(agent, report, frames, calibration, config)
        say(_int8_lines(quantized))


def _int8_lines(quantized: QuantizedPolicy) -> str:
    before, after, found = quantized.before, quantized.after, quantized.comparison
    frames = counted(found.examples, "frame")
    agreement = f"the same greedy action on {found.same_choice} of {frames}"
    if found.same_choice is None:
        agreement = f"on {frames} the outputs differ by at most {found.max_abs_diff:.1e}"
    return "\n".join(
        [
            f"{quantized.path} ({quantized.size / 1e3:,.0f} kB, int8): {agreement}; contract in {quantized.contract}",
            f"return: float32 {before.mean:.2f} ({before.low:.2f} to {before.high:.2f}), int8"
            f" {after.mean:.2f} ({after.low:.2f} to {after.high:.2f}); loss {quantized.loss:.2f}"
            f" ({_share(quantized.loss, before.mean)}), {counted(len(after.returns), 'episode')} each",
        ]
    )


def _share(loss: float, mean: float) -> str:
    return f"{loss / abs(mean):+.1%}" if mean and math.isfinite(mean) else "of 0"
