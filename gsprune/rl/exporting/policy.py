"""Exports the policy of a run for a device: the network's logits or Q values, without value head and sampling."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from gsprune.arrays import Uint8Array
from gsprune.engines.onnxruntime import OnnxFunction, load_onnx
from gsprune.engines.portable_call import portable_call
from gsprune.engines.quantize import quantize
from gsprune.exporting import ExportReport, export
from gsprune.exporting.comparison import Comparison, compare
from gsprune.exporting.contract import check_entry, contract_path, encoded, file_entry
from gsprune.exporting.exporter import Format, onnx_runner
from gsprune.files import write_atomically
from gsprune.networks import example_frames
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.evaluation.protocol import CLEAN_TRACKS, ProtocolConfig, TrackResult, evaluate_tracks
from gsprune.rl.exporting.contract import policy_contract
from gsprune.rl.trained import TrainedAgent
from gsprune.rl.training.network_size import NetworkSize

__all__ = ["QuantizedPolicy", "export_policy", "quantize_policy"]

_INPUT = "frames"
_CALIBRATION_BATCH = 32
_TEST_TRACK = CLEAN_TRACKS[1]


def export_policy(
    agent: TrainedAgent, folder: Path, path: Path, frames: Uint8Array, form: Format = "onnx", dynamic_batch: bool = True
) -> ExportReport:
    """Export the policy of a run.

    Args:
        agent: the run's agent.
        folder: the run folder.
        path: the file; the contract is written next to it.
        frames: (n, C, H, W) uint8 of its game, on which outputs and greedy actions must agree with PyTorch's.
        form: "onnx" or "torch".
        dynamic_batch: allow any number of frames per call; False fixes it to 1.

    Raises:
        ExportError: the exported policy chooses other actions than the agent.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    return export(
        agent.acting_part,
        path,
        example_frames(observation_shape=agent.environment.observation_shape),
        format=form,
        dynamic_batch=dynamic_batch,
        check_inputs=torch.from_numpy(frames),
        input_names=[_INPUT],
        output_names=[agent.algorithm.output_name(agent.environment)],
        contract=policy_contract(
            agent, folder, NetworkSize.of(agent.build_dense(), agent.environment.observation_shape)
        ),
    )


@dataclass(frozen=True)
class QuantizedPolicy:
    """A policy in 8-bit integers.

    Attributes:
        path: the ONNX file.
        contract: the JSON file next to it.
        size: bytes of the file.
        comparison: the comparison with the float policy.
        before: result of the float policy on the track "test".
        after: result of this policy in the same episodes.
    """

    path: Path
    contract: Path
    size: int
    comparison: Comparison
    before: TrackResult
    after: TrackResult

    @property
    def loss(self) -> float:
        """Mean return lost, in reward units; negative if the quantised policy is better."""
        return self.before.mean - self.after.mean


def quantize_policy(
    agent: TrainedAgent, report: ExportReport, frames: Uint8Array, calibration: Uint8Array, config: ProtocolConfig
) -> QuantizedPolicy:
    """Quantise an exported policy, and measure its loss of return.

    Args:
        agent: the run's agent.
        report: the report of its export as ONNX.
        frames: (n, C, H, W) uint8, for the comparison of outputs.
        calibration: (m, C, H, W) uint8, other frames, for the ranges of activations.
        config: the evaluation; both policies play the same levels.

    Raises:
        ExportError: ONNX Runtime cannot quantise the file.
    """
    path = report.path.with_suffix(".int8.onnx")
    contract = json.loads(report.contract.read_text())
    # A fixed batch is calibrated with batches of its own size.
    batch = _CALIBRATION_BATCH if contract["inputs"][0]["shape"][0] == "batch" else 1
    chunks = [calibration[start : start + batch] for start in range(0, len(calibration) - batch + 1, batch)]
    quantize(report.path, path, [{_INPUT: chunk} for chunk in chunks])
    example = example_frames(observation_shape=agent.environment.observation_shape)
    call = portable_call(agent.acting_part, example, None, [_INPUT])
    chunk = 100 if batch > 1 else 1
    comparison = compare(call, onnx_runner(path, [_INPUT]), [torch.from_numpy(frames)], math.inf, chunk)
    comparison = replace(comparison, ties=0)
    if not isinstance(agent.environment.action_space, Discrete):  # the outputs are not values of single actions
        comparison = replace(comparison, same_choice=None)
    before, after = (_played(agent, load_onnx(file), config, batch == 1) for file in (report.path, path))
    contract["file"] = file_entry(path, path.name)
    contract["check"] = check_entry(comparison, "PyTorch, float32")
    contract["int8"] = {
        "calibration_frames": len(calibration),
        "episodes": len(after.returns),
        "test_return_float32": before.mean,
        "test_return": after.mean,
        "loss": before.mean - after.mean,
    }
    write_atomically(contract_path(path), encoded(contract))
    return QuantizedPolicy(path, contract_path(path), path.stat().st_size, comparison, before, after)


def _played(agent: TrainedAgent, network: OnnxFunction, config: ProtocolConfig, one_by_one: bool) -> TrackResult:
    """Play the test track with an ONNX file."""

    def outputs(frames: Tensor) -> Tensor:
        array = np.ascontiguousarray(frames.numpy())
        chunks = np.split(array, len(array)) if one_by_one else [array]
        return torch.from_numpy(np.concatenate([network({_INPUT: chunk})[0] for chunk in chunks]))

    def policy(generator: torch.Generator) -> Policy:
        return agent.algorithm.policy(outputs, agent.network, agent.environment, generator, torch.device("cpu"))

    return evaluate_tracks(policy, config, [_TEST_TRACK])[_TEST_TRACK.name]
