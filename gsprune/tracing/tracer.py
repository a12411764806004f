"""Runs a network once on an example and derives its groups from the operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from gsprune.errors import TraceError, is_out_of_memory
from gsprune.tracing.autocast import active_autocast
from gsprune.tracing.copies import frozen_copies, tie_copies
from gsprune.tracing.dispatch import Tracer
from gsprune.tracing.example import Example, as_example, candidates
from gsprune.tracing.graph import Graph, layer_of
from gsprune.tracing.groups import build_graph
from gsprune.tracing.marks import unmark
from gsprune.tracing.modules import tie_modules
from gsprune.tracing.outputs import protect_outputs, tensors_in
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.tape import Tape
from gsprune.tracing.temporary_eval import temporary_eval
from gsprune.tracing.training_mode import is_user_class, reads_training, set_training_mode
from gsprune.tracing.unseen import protect_unseen, unseen_parts
from gsprune.tracing.watcher import Watcher
from gsprune.tracing.wrappers import refusal_of

__all__ = ["modules_on_traceback", "trace", "trace_call"]

_PASSED_BY_NAME = "; a dictionary's entries are passed by name: pass a tuple (inputs,) if the forward takes it whole"


def trace(
    model: nn.Module,
    example_inputs: Any = None,
    forward: Callable[..., Any] | None = None,
    copies: Mapping[str, str] | None = None,
) -> tuple[Graph, Example]:
    """Trace a network: return its groups and the example that it ran on.

    The model runs once in eval mode, without gradients. Its state is restored afterwards. Without `example_inputs`, an
    example is made from the first layer. `copies` is {copy: original}, names of submodules that lose the same channels,
    besides the detected ones.

    Raises:
        TypeError: `model` is not a module, `forward` is not callable, or `example_inputs` has another type.
        TraceError: no example could be made, the forward failed, or the model is wrapped (DDP, FSDP).
    """
    _check_supported(model, forward)
    if example_inputs is not None:
        return trace_call(model, as_example(example_inputs, forward), copies or {})
    failures = []
    for example in candidates(model, forward):
        try:
            return _trace_once(model, example, "made", copies or {}), example
        except TraceError as error:
            failures.append((example, error))
    tried = ", ".join(str(shape) for example, _ in failures for shape in _shapes(example))
    reason = f"tried {tried}; the last failure: {failures[-1][1]}" if failures else "its first layer gives no hint"
    raise TraceError(
        f"no example could be made for {type(model).__name__} ({reason}); pass one: example_inputs=a tensor, a tuple "
        "or a dict, and forward=lambda model, *inputs: ... if the model is not called directly"
    ) from (failures[-1][1] if failures else None)


def trace_call(model: nn.Module, example: Example, copies: Mapping[str, str]) -> tuple[Graph, Example]:
    """Trace a network on an example: first without autocast; if that fails, inside the autocast blocks.

    The blocks are those that the caller is in, or else the example's.

    Raises:
        TraceError: the forward failed.
    """
    blocks = active_autocast() or example.autocast
    plain = replace(example, autocast=())
    try:
        return _trace_once(model, plain, "given", copies), plain
    except TraceError:
        if not blocks:
            raise
        inside = replace(example, autocast=blocks)
        with suppress(TraceError):
            return _trace_once(model, inside, "given", copies), inside
        raise


def _check_supported(model: Any, forward: Any) -> None:
    """Refuse models that cannot be traced, before anything runs."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    if forward is not None and not callable(forward):
        raise TypeError(f"`forward` must be callable or None, got {type(forward).__name__}")
    for name, module in model.named_modules():
        refusal = refusal_of(module, name or "the model")
        if refusal is not None:
            raise TraceError(refusal)
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise TraceError(f"{name} has no shape yet: call the model once, so that its lazy layers are made")


def _shapes(example: Example) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_in((example.args, example.kwargs))]


def _trace_once(
    model: nn.Module, example: Example, origin: Literal["given", "made"], copies: Mapping[str, str]
) -> Graph:
    tape = Tape(model)
    tape.copies = {**frozen_copies(model), **copies}
    try:
        with temporary_eval(model) as tape.originals, plain_operations(model):
            protect_outputs(tape, model, _run(model, example, tape))
            _run_in_training(model, example, tape)
            tie_modules(tape, model)
            tie_copies(tape, model, tape.copies)
            unseen = unseen_parts(tape, model)
            if unseen:
                with tape.without_trail():
                    tape.unseen = protect_unseen(tape, model, unseen, lambda: _run(model, example, tape))
    finally:
        for tensor in tensors_in((example.args, example.kwargs)):
            unmark(tensor)
    return build_graph(tape, model, _shapes(example), origin)


def _run_in_training(model: nn.Module, example: Example, tape: Tape) -> None:
    """Run once more to reach what only training uses (noise, noisy layers, auxiliary heads, the user's statistics).

    If the user's code depends on the mode, all modules of the user are in training mode. For tensors that are unused
    after that, only the modules that own them, and the modules around these, are in training mode.
    """
    if reads_training(model, example.forward):
        set_training_mode(model)
        operations, populations = len(tape.trail), len(tape.populations)
        with tape.without_trail(), suppress(TraceError), tape.discarded_on_error():
            protect_outputs(tape, model, _run(model, example, tape))
            tape.training_trail = tape.trail[operations:]
            del tape.populations[populations:]  # `Graph.inexact` is about the outputs in eval mode
        for module in model.modules():
            module.training = False
    owners = _owners_of_unused(model, tape)
    if tape.training_trail:  # the user's modules have run in training mode
        types = {name: type(module) for name, module in model.named_modules()}
        owners = {owner for owner in owners if not is_user_class(types.get(owner, type(model)))}
    if not owners:
        return
    around = {"", *(".".join(owner.split(".")[:end]) for owner in owners for end in range(1, owner.count(".") + 2))}
    modules = [module for name, module in model.named_modules() if name in around]
    for module in modules:
        module.training = True
    with tape.without_trail(), suppress(TraceError):  # if it fails, the parameters count as unused
        protect_outputs(tape, model, _run(model, example, tape))
    for module in modules:
        module.training = False


def _owners_of_unused(model: nn.Module, tape: Tape) -> set[str]:
    """Names of the modules with a parameter or buffer that the call has not used, or with a tensor as an attribute."""
    unused = [name for name, _ in model.named_parameters() if not tape.is_used(name)]
    unused += [name for name, buffer in model.named_buffers() if buffer.numel() > 1 and not tape.is_used(name)]
    attributes = (
        name
        for name, module in model.named_modules()
        if any(isinstance(value, Tensor) and value.numel() > 1 for value in vars(module).values())
    )
    return {*map(layer_of, unused), *attributes}


def _run(model: nn.Module, example: Example, tape: Tape) -> Any:
    """Call the model under the tracer. The error of a failing forward names the module and the operation."""
    try:
        with Watcher(tape), Tracer(tape):
            return example.call(model)
    except Exception as error:
        if isinstance(error, TraceError) or is_out_of_memory(error):
            raise
        names = {id(module): name for name, module in model.named_modules()}
        where = next((names[id(m)] for m in reversed(modules_on_traceback(error)) if id(m) in names), None)
        shapes = ", ".join(str(shape) for shape in _shapes(example))
        raise TraceError(
            f"the forward of {type(model).__name__} failed on `example_inputs` of shape {shapes}"
            f"{f' in module {where!r}' if where else ''} (last operation: {tape.op or 'none'}): "
            f"{type(error).__name__}: {error}{_PASSED_BY_NAME if example.kwargs else ''}"
        ) from error


def modules_on_traceback(error: BaseException) -> tuple[nn.Module, ...]:
    """The modules whose methods were running when the error was raised, outermost first."""
    modules: list[nn.Module] = []
    traceback = error.__traceback__
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and (not modules or modules[-1] is not owner):
            modules.append(owner)
        traceback = traceback.tb_next
    return tuple(modules)
