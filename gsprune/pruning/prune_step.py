"""The public calls `trace` and `prune_step`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from gsprune.backends import BackendName
from gsprune.checks import check_choice, check_flag
from gsprune.distributed.consensus import consensus_of
from gsprune.engines import LatencyBudget, RoundTo, multiple_of
from gsprune.importance import resolve_importance
from gsprune.pruning.calibration_data import Compensate, check_calibration_data, with_calibration
from gsprune.pruning.checked_model import checked_model
from gsprune.pruning.latency_target import options_within_budget
from gsprune.pruning.options import ImportanceSpec, StepOptions, latency_budget
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import open_session
from gsprune.pruning.step import take_step
from gsprune.rewrite.followers import Follower, as_followers
from gsprune.rewrite.optimizers.wrappers import as_optimizers
from gsprune.rewrite.session import Session
from gsprune.selection import TARGETS, Scope, Selection, Target
from gsprune.tracing import trace as trace_model
from gsprune.tracing.graph import Graph

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["prune_step", "trace"]


def trace(model: nn.Module, example_inputs: Any = None, forward: Callable[..., Any] | None = None) -> Graph:
    """Find the groups of a network by running it once. The network is not changed.

    Args:
        model: the network; mode, buffers, random generators, and parameters and attributes that its forward writes to
            are restored.
        example_inputs: tensor, tuple of positional inputs or dict of inputs by name; None generates one that fits the
            first layer.
        forward: callable(model, *example_inputs) -> outputs; None calls the model.

    Returns:
        the groups, and the protected channels with reasons; ``print(graph)`` shows a table.

    Raises:
        TraceError: no example fits, or the forward fails.
        TypeError: `model` is not a module, or is wrapped in DDP or FSDP.
    """
    return trace_model(checked_model(model), example_inputs, forward)[0]


def prune_step(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | LatencyBudget,
    *,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    followers: nn.Module | Sequence[Follower] = (),
    example_inputs: Any = None,
    forward: Callable[..., Any] | None = None,
    importance: ImportanceSpec = "l1",
    scope: Scope = "local",
    target: Target | Literal["latency"] = "channels",
    ignore: Sequence[str | nn.Module | type] = (),
    round_to: RoundTo = 1,
    min_channels: int | Mapping[str, int] = 1,
    rescale: bool = False,
    compensate: Compensate = "none",
    calibration: Any = None,
    backend: BackendName = "auto",
    dry_run: bool = False,
    process_group: ProcessGroup | None = None,
) -> PruneReport:
    """Make the network physically smaller in the middle of its training.

    The least important channels are removed from every tensor that they are part of. Parameters stay the same objects.
    Their gradients, the optimizer's moments and the followers are sliced with the same indices. A step that fails for
    any reason changes nothing.

    Call it between ``optimizer.step()`` and the next forward. After a call between forward and backward, the backward
    fails.

    Args:
        model: any module of floating-point parameters; DDP and FSDP wrappers are refused (prune ``.module``).
        sparsity: cumulative, the fraction of the first-seen width that is removed, in [0, 1); or {glob of group or
            layer names: number}, which leaves other groups alone. With target "latency" a `LatencyBudget`, or its
            milliseconds.
        optimizer: a ``torch.optim.Optimizer`` or a wrapper of one (Lookahead, accelerate's), or several. Their state
            is sliced along, and so are copies of weights in their attributes. Unsupported states raise an error.
        followers: modules of the same architecture (target network, EMA copy, ``AveragedModel``), or containers of
            their tensors (torchrl's ``TensorDictParams``). A submodule of the model (momentum encoder, target network
            inside the agent) loses the same channels as its original. That is the only other submodule of the same
            structure, or the second of a pair, ``followers=[(agent.target, agent.critic)]``. Copies without gradient of
            a trainable submodule are found automatically.
        example_inputs: tensor, tuple or dict; needed at most once per model. None uses that of an earlier step, or
            generates one that fits the first layer. For inputs of another size the model is traced again.
        forward: callable(model, *example_inputs) -> outputs; None uses that of an earlier step, or calls the model.
        importance: "l1", "l2", "taylor", "bn_scale", "lamp", "fpgm", "hessian", "activation", "random",
            "reconstruction", an `Importance`, or a function from a weight, as a (positions, others) matrix, to one
            number per position. "reconstruction" is made for ``compensate="linear"``: the score of a channel is the
            error that remains if the layers that read it predict it from the others.
        scope: "local": the same ratio in every group; "global": one threshold; "isomorphic": one per kind of group.
        target: the unit of `sparsity`: "channels", "params" or "macs" ("macs" needs a real example); or "latency": a
            budget in milliseconds on this machine. It is met within 10 % by one ratio for all groups, which is found by
            measurements. These are stored in a table and reused.
        ignore: module names (globs), modules or module types whose outputs keep their width.
        round_to: the multiple to which widths are rounded up: a number, {glob: number}, or the preset of an engine:
            "onnxruntime", "tensorrt-fp16", "cmsis-nn" or "ethos-u".
        min_channels: the smallest width; a number or {glob: number}.
        rescale: multiply kept channels by max(‖w before‖/‖w after‖, 1).
        compensate: how the layers that read removed channels are compensated: "linear" predicts removed channels from
            kept ones (a least-squares map that is folded into weights and biases), "bias" replaces them by their mean,
            "none" does nothing. Each follower gets a separate map.
        calibration: a few hundred inputs for `compensate`, for the importance "reconstruction" (which needs them) and
            for "activation": a tensor, tuple or dict like `example_inputs`, or an iterable of them. None uses the
            example. A compensated step runs them once before and once after the removal, and as often for each
            follower. One batch gives the best maps; put the inputs of several batches in random order.
        backend: "auto", "cpp", "triton" or "torch".
        dry_run: only report what would be removed. With `compensate`, the step is made and rolled back, and
            `PruneReport.output_change` has the change of the output on `calibration`.
        process_group: the ``torch.distributed`` group whose ranks train this network together; all of them must call.
            Scores that depend on data are averaged over the ranks. The choices of all ranks are compared before
            anything is changed, so the step happens on all ranks or on none.

    Returns:
        the report of the step.

    Raises:
        ValueError: an argument is invalid.
        TypeError: an argument has a wrong type.
        TraceError: the network cannot be traced.
        ScoreError: a score is not finite.
        RewriteError: the smaller network could not be built or failed its check.
        DistributedError: the ranks do not agree, or another rank has failed; nothing was changed on any.
    """
    # Tensors made in inference mode could not be trained.
    with consensus_of(process_group, model) as consensus, torch.inference_mode(mode=False):
        module = checked_model(model)
        budget = latency_budget(sparsity, target, scope)
        check_choice("target", target, (*TARGETS, "latency"))
        check_choice("compensate", compensate, ("none", "bias", "linear"))
        if rescale and compensate != "none":
            raise ValueError("`rescale` is True and `compensate` is not 'none': both compensate for removed channels")
        selection = Selection(
            sparsity=0.0 if budget is not None or isinstance(sparsity, LatencyBudget) else sparsity,
            scope=scope,
            target="channels" if target == "latency" else target,
            round_to=multiple_of(round_to),
            min_channels=min_channels,
        )
        scores = resolve_importance(importance)
        check_calibration_data(scores, compensate, calibration, example_inputs)
        options = StepOptions(
            selection=selection,
            importance=scores,
            ignore=ignore,
            rescale=check_flag("rescale", rescale),
            backend=backend,
            dry_run=check_flag("dry_run", dry_run),
            consensus=consensus,
        )
        optimizers = as_optimizers(optimizer)
        modules, copies = as_followers(followers, module)
        session = open_session(module, example_inputs, forward, copies)
        options = with_calibration(options, compensate, calibration, session.example)
        if target in ("macs", "latency"):
            _check_example(session, target)
        if budget is not None and budget.reached > 0:
            options = options_within_budget(module, session, options, budget)
        report = take_step(module, session, options, optimizers, modules)
        notes = [] if budget is None else [f"latency budget: {budget}"]
        if calibration is not None and not options.calibration:
            notes.append(
                f"`calibration` is not used: `compensate` is 'none', and `importance` {scores.name} reads no data"
            )
        return replace(report, notes=(*report.notes, *notes)) if notes else report


def _check_example(session: Session, target: str) -> None:
    """Refuse a target that depends on the inputs' size if the example was generated."""
    graph = session.groups.traced
    if graph.example_origin == "made":
        raise ValueError(
            f"`target` is {target!r}, which depends on the size of the inputs: pass `example_inputs` of the real"
            f" size (the one made from the first layer has shapes {graph.example_shapes})"
        )
