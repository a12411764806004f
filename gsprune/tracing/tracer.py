"""Trace a network: run it once on an example and read its groups off the operations that arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from gsprune.errors import TraceError, is_out_of_memory
from gsprune.tracing.autocast import active_autocast
from gsprune.tracing.copies import frozen_copies, tie_copies
from gsprune.tracing.dispatch import Tracer
from gsprune.tracing.example import Example, as_example, candidates
from gsprune.tracing.graph import Graph
from gsprune.tracing.groups import build_graph
from gsprune.tracing.marks import unmark
from gsprune.tracing.modules import tie_modules
from gsprune.tracing.outputs import protect_outputs, tensors_in
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.scales import protect_reused_queries
from gsprune.tracing.tape import Tape
from gsprune.tracing.temporary_eval import temporary_eval
from gsprune.tracing.unseen import protect_unseen, unseen_modules
from gsprune.tracing.watcher import Watcher
from gsprune.tracing.wrappers import is_scripted, wrapper_of

__all__ = ["trace", "trace_call"]


def trace(
    model: nn.Module,
    example_inputs: Any = None,
    forward: Callable[..., Any] | None = None,
    copies: Mapping[str, str] | None = None,
) -> tuple[Graph, Example]:
    """The groups of a network, and the call that found them.

    The model runs once in eval mode and without grad, on `example_inputs` or on an example made from its first layer;
    afterwards parameters, buffers, modes, random generators and attributes are as before.

    Args:
        model: the network.
        example_inputs: a tensor, a tuple of positional inputs, or a dict of inputs by name.
        forward: what to call instead of the model: ``forward(model, *inputs)``.
        copies: {copy: original}, names of submodules that stay in step, besides those that are found.

    Returns:
        the graph and the example.

    Raises:
        TypeError: `model` is not a module, `forward` is not callable, or `example_inputs` is of another kind.
        TraceError: no example could be made, the forward failed, or the model is wrapped (DDP, FSDP).
    """
    _check(model, forward)
    if example_inputs is not None:
        return trace_call(model, as_example(example_inputs, forward), copies or {})
    failures = []
    for example in candidates(model, forward):
        try:
            return _traced(model, example, "made", copies or {}), example
        except TraceError as error:
            failures.append((example, error))
    tried = ", ".join(str(shape) for example, _ in failures for shape in _shapes(example))
    reason = f"tried {tried}; the last failure: {failures[-1][1]}" if failures else "its first layer gives no hint"
    raise TraceError(
        f"no example could be made for {type(model).__name__} ({reason}); pass one: example_inputs=a tensor, a tuple "
        "or a dict, and forward=lambda model, *inputs: ... if the model is not called directly"
    ) from (failures[-1][1] if failures else None)


def trace_call(model: nn.Module, example: Example, copies: Mapping[str, str]) -> tuple[Graph, Example]:
    """The groups of a network by one call, in its own precision if the call works without autocast.

    Args:
        model: the network.
        example: the user's call; its autocast blocks are tried where the caller is in none.
        copies: {copy: original}, names of submodules that stay in step.

    Returns:
        the graph and the call that found it.

    Raises:
        TraceError: the forward failed.
    """
    blocks = active_autocast() or example.autocast
    plain = replace(example, autocast=())
    try:
        return _traced(model, plain, "given", copies), plain
    except TraceError:
        if not blocks:
            raise
        inside = replace(example, autocast=blocks)
        with suppress(TraceError):
            return _traced(model, inside, "given", copies), inside
        raise


def _check(model: Any, forward: Any) -> None:
    """Refuse what cannot be traced before anything runs."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    if forward is not None and not callable(forward):
        raise TypeError(f"`forward` must be callable or None, got {type(forward).__name__}")
    for name, module in model.named_modules():
        wrapper = wrapper_of(module)
        if wrapper is not None:
            raise TraceError(
                f"{name or 'the model'} is wrapped in {wrapper}, whose hooks would be lost without an error; "
                "prune the module inside (.module, or before fully_shard) and wrap it again"
            )
        if is_scripted(module):
            raise TraceError(
                f"{name or 'the model'} is a scripted or traced TorchScript module ({type(module).__name__}), whose"
                " code and sizes cannot be changed: prune the Python module, and call torch.jit.script or"
                " torch.jit.trace afterwards"
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise TraceError(f"{name} has no shape yet: call the model once, so that its lazy layers are made")


def _shapes(example: Example) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_in((example.args, example.kwargs))]


def _traced(model: nn.Module, example: Example, origin: Literal["given", "made"], copies: Mapping[str, str]) -> Graph:
    """One traced call."""
    tape = Tape(model)
    tape.copies = {**frozen_copies(model), **copies}
    try:
        with temporary_eval(model), plain_operations(model):
            protect_outputs(tape, model, _run(model, example, tape))
            _run_in_training(model, example, tape)
            protect_reused_queries(tape)
            tie_modules(tape, model)
            tie_copies(tape, model, tape.copies)
            _protect_unseen(model, example, tape)
    finally:
        for tensor in tensors_in((example.args, example.kwargs)):
            unmark(tensor)
    return build_graph(tape, model, _shapes(example), origin)


def _run_in_training(model: nn.Module, example: Example, tape: Tape) -> None:
    """Run once more where the eval mode left parameters out that training uses (noisy layers, auxiliary heads).

    Only the modules that own such parameters are in training mode, and those around them. A failure is no matter: the
    parameters count as not used.
    """
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name not in tape.used}
    if not owners:
        return
    around = {"", *(".".join(owner.split(".")[:end]) for owner in owners for end in range(1, owner.count(".") + 2))}
    modules = [module for name, module in model.named_modules() if name in around]
    for module in modules:
        module.training = True
    # A failure here is one of the user's own code in a mode that was not asked for.
    with tape.without_trail(), suppress(TraceError):
        protect_outputs(tape, model, _run(model, example, tape))
    for module in modules:
        module.training = False


def _protect_unseen(model: nn.Module, example: Example, tape: Tape) -> None:
    """Protect what parts of the model may read that no run has used; a further run shows what passes by them."""
    names = unseen_modules(tape, model)
    if names:
        with tape.without_trail():
            tape.unseen = protect_unseen(tape, model, names, lambda: _run(model, example, tape))


def _run(model: nn.Module, example: Example, tape: Tape) -> Any:
    """Call the model under the tracer; failures say where."""
    try:
        with Watcher(tape), Tracer(tape):
            return example.call(model)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        where = _module_at(error, model)
        shapes = ", ".join(str(shape) for shape in _shapes(example))
        raise TraceError(
            f"the forward of {type(model).__name__} failed on `example_inputs` of shape {shapes}"
            f"{f' in module {where!r}' if where else ''} (last operation: {tape.op or 'none'}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _module_at(error: BaseException, model: nn.Module) -> str | None:
    """Name of the innermost module of `model` in whose methods the error was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    found = None
    frame = error.__traceback__
    while frame is not None:
        owner = frame.tb_frame.f_locals.get("self")
        if id(owner) in names:
            found = names[id(owner)]
        frame = frame.tb_next
    return found
