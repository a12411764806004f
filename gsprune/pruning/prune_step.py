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
from gsprune.compensation.calibration import calibration_calls
from gsprune.compensation.compensation import Compensation
from gsprune.distributed.consensus import consensus_of
from gsprune.engines import LatencyBudget, RoundTo, multiple_of
from gsprune.importance import resolve_importance
from gsprune.pruning.checked_model import checked_model
from gsprune.pruning.latency_target import options_within_budget
from gsprune.pruning.options import ChoiceOptions, ImportanceSpec, StepOptions, latency_budget
from gsprune.pruning.report import PruneReport
from gsprune.pruning.session import open_session
from gsprune.pruning.step import take_step
from gsprune.rewrite.followers import Follower, as_followers
from gsprune.rewrite.optimizers.wrappers import as_optimizers
from gsprune.rewrite.session import Session
from gsprune.rewrite.tensors import unwrapped
from gsprune.selection import TARGETS, Scope, Selection, Target
from gsprune.tracing import trace as trace_model
from gsprune.tracing.graph import Graph

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["prune_step", "trace"]


def trace(model: nn.Module, example_inputs: Any = None, forward: Callable[..., Any] | None = None) -> Graph:
    """Find the groups of a network by running it once; leaves no trace in it.

    Args:
        model: the network; its mode, parameters, buffers, gradients and the random generators are as before afterwards.
        example_inputs: tensor, tuple of positional inputs or dict of inputs by name; None makes one from the first
            layer.
        forward: callable(model, *example_inputs) -> outputs; None calls the model.

    Returns:
        the groups, what is protected and why; ``print(graph)`` is a table.

    Raises:
        TraceError: no example fits, or the forward fails.
        TypeError: `model` is not a module, or is wrapped in DDP or FSDP.
    """
    return trace_model(unwrapped(checked_model(model)), example_inputs, forward)[0]


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
    compensate: Literal["none", "bias", "linear"] = "none",
    calibration: Any = None,
    backend: BackendName = "auto",
    dry_run: bool = False,
    process_group: ProcessGroup | None = None,
) -> PruneReport:
    """Make the network physically smaller, now, in the middle of its training.

    The channels that are least important are removed from every tensor they run through. Parameters stay the same
    objects; their gradients, the optimizer's moments and the followers are sliced with the same indices. It happens as
    a whole or not at all: whatever goes wrong leaves everything as it was.

    Call it between ``optimizer.step()`` and the next forward (between forward and backward, the backward fails).

    Args:
        model: any module of floating-point parameters; DDP and FSDP wrappers are refused (prune ``.module``).
        sparsity: cumulative, the fraction of the first-seen width that is removed, in [0, 1); or {glob of group or
            layer names: number}, where groups that no glob matches are left alone. With target "latency" a
            `LatencyBudget`, or its milliseconds.
        optimizer: a ``torch.optim.Optimizer`` or a wrapper of one (Lookahead, accelerate's), or several. Their state
            follows, as do copies of weights in their attributes; what cannot be followed is refused by name.
        followers: modules of the same architecture (target network, EMA copy, ``AveragedModel``), or containers of
            their tensors (torchrl's ``TensorDictParams``). A submodule of the model (momentum encoder, target network
            inside the agent) loses the channels of its original: the only other submodule of its structure, or the one
            that a pair names, ``followers=[(agent.target, agent.critic)]``. Copies without gradient, whose weights
            follow a trainable submodule, are found without being named.
        example_inputs: tensor, tuple or dict; needed at most once per model. None takes that of an earlier step, or
            makes one from the first layer. Another size than before means other MACs: the model is traced again.
        forward: callable(model, *example_inputs) -> outputs; None takes that of an earlier step, or calls the model.
        importance: "l1", "l2", "taylor", "bn_scale", "lamp", "fpgm", "hessian", "activation", "random", an
            `Importance`, or a function from a weight, as a (positions, rest) matrix, to one number per position.
        scope: "local": the same ratio in every group; "global": one threshold; "isomorphic": one per kind of group.
        target: what `sparsity` counts: "channels", "params" or "macs" ("macs" needs a real example); or "latency": a
            budget of milliseconds on this machine, met by a common ratio of channels that is found by measuring (once:
            a table is kept), within 10 %.
        ignore: module names (globs), modules or module types whose outputs keep their width.
        round_to: widths are rounded up to a multiple; a number, {glob: number}, or what suits an engine:
            "onnxruntime", "tensorrt-fp16", "cmsis-nn" or "ethos-u".
        min_channels: no width goes below; a number or {glob: number}.
        rescale: multiply kept channels by max(‖w before‖/‖w after‖, 1).
        compensate: how the layers behind removed channels make up for them: "linear" reads them off the channels that
            stay (a least-squares map, written into the layers' weights and biases), "bias" replaces them by their mean,
            "none" does nothing. Followers get the same map.
        calibration: inputs for that: a tensor, a tuple or dict of inputs as `example_inputs`, or an iterable of them;
            a few hundred. None takes the example. They run once before and once after the removal.
        backend: "auto", "cpp", "triton" or "torch".
        dry_run: only report what would be removed.
        process_group: the ``torch.distributed`` group whose ranks train this network together; all of them must call.
            Scores that depend on data are averaged over the ranks, and before anything is changed every rank's choice
            is compared: the step happens on all ranks or on none.

    Returns:
        what was done.

    Raises:
        ValueError: a bad argument.
        TypeError: an argument of a wrong type.
        TraceError: the network cannot be traced.
        ScoreError: a score is not finite.
        RewriteError: the smaller network could not be built or failed its check.
        DistributedError: the ranks do not agree, or another rank has failed; nothing was changed on any.
    """
    # In inference mode the new tensors would be ones that no training can change.
    with consensus_of(process_group, model) as consensus, torch.inference_mode(mode=False):
        module = unwrapped(checked_model(model))
        budget = latency_budget(sparsity, target, scope)
        check_choice("target", target, (*TARGETS, "latency"))
        check_choice("compensate", compensate, ("none", "bias", "linear"))
        if rescale and compensate != "none":
            raise ValueError("`rescale` is True and `compensate` is not 'none': both make up for the same channels")
        selection = Selection(
            sparsity=0.0 if budget is not None or isinstance(sparsity, LatencyBudget) else sparsity,
            scope=scope,
            target="channels" if target == "latency" else target,
            round_to=multiple_of(round_to),
            min_channels=min_channels,
        )
        options = StepOptions(
            choice=ChoiceOptions(selection, resolve_importance(importance), ignore),
            rescale=check_flag("rescale", rescale),
            backend=backend,
            dry_run=check_flag("dry_run", dry_run),
            consensus=consensus,
        )
        optimizers = as_optimizers(optimizer)
        following = as_followers(followers, module)
        session = open_session(module, example_inputs, forward, following.copies)
        if compensate != "none" and not options.dry_run:
            calls = calibration_calls(calibration, session.example)
            stack = None if consensus is None else consensus.stacked
            options = replace(options, compensation=Compensation(calls, compensate, stack))
        if target in ("macs", "latency"):
            _check_example(session, target)
        if budget is not None and budget.reached > 0:
            options = options_within_budget(module, session, options, budget)
        report = take_step(module, session, options, optimizers, following.modules)
        return report if budget is None else replace(report, notes=(*report.notes, f"latency budget: {budget}"))


def _check_example(session: Session, target: str) -> None:
    """Refuse a target that depends on the size of the inputs where only a made-up example is at hand."""
    graph = session.groups.traced
    if graph.example_origin == "made":
        raise ValueError(
            f"`target` is {target!r}, which depends on the size of the inputs: pass `example_inputs` of the real"
            f" size (the one made from the first layer has shapes {graph.example_shapes})"
        )
