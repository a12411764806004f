"""Trace a network: run it once on an example and read its groups off the operations that arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gsprune.errors import TraceError, is_out_of_memory
from gsprune.tracing.autocast import active_autocast
from gsprune.tracing.constants import is_noise, mark_noise, uneven_axes, unmark_noise
from gsprune.tracing.example import Example, candidates, given
from gsprune.tracing.exits import copies, leaves, protect_outputs
from gsprune.tracing.graph import Graph
from gsprune.tracing.groups import build_graph
from gsprune.tracing.lengths import is_split, is_view, read_shape, reads_shape, tie_split, tie_view
from gsprune.tracing.modules import tie_modules
from gsprune.tracing.numbers import numbers_of
from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.passages import Numbers, Step
from gsprune.tracing.positions import use_positions
from gsprune.tracing.rules import rule_for
from gsprune.tracing.rules_common import Call, Rule, origin, protect_all
from gsprune.tracing.scales import keep_scale, keep_widths_of_busy_queries
from gsprune.tracing.shadow import EMPTY, FREE, Kind, Labels, Shadow
from gsprune.tracing.tape import OUTPUT, Tape
from gsprune.tracing.twins import frozen_copies, tie_copies
from gsprune.tracing.undisturbed import undisturbed
from gsprune.tracing.unseen import protect_unseen, unseen_modules
from gsprune.tracing.wrappers import is_scripted, wrapper_of
from gsprune.tracing.writes import note_write

__all__ = ["operation_of", "outputs_of", "plain_operations", "trace", "trace_call"]


# These make axes that follow what they meet, also from a tensor of which nothing is known.
_MAKERS = frozenset(f"aten.{name}" for name in ("expand", "repeat", "new_zeros", "new_ones", "new_full", "new_empty"))
# In place, these do not read the values that were there.
_OVERWRITES = frozenset({"aten.copy", "aten.fill", "aten.zero"})


class _Operation(NamedTuple):
    """What is known of an operation before it runs."""

    name: str
    rule: Rule | None
    mutable: bool
    composite: bool
    random: bool


@cache
def operation_of(func: torch._ops.OpOverload) -> _Operation:
    """What is known of an operation; composite ones are traced, and counted, as what they are made of."""
    name = func._schema.name.replace("::", ".")
    mutable = func._schema.is_mutable
    rule = rule_for(func)
    composite = rule is None and func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    random = torch.Tag.nondeterministic_seeded in func.tags
    return _Operation(name.removesuffix("_") if mutable else name, rule, mutable, composite, random)


def outputs_of(out: Any) -> list[Tensor]:
    """The tensors that one operation returned."""
    several = out if isinstance(out, tuple | list) else [out]
    return [each for each in several if isinstance(each, Tensor)]


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Runs every operation as it is and notes on the tape what it does to channels."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler (seconds) on the first operation, only to keep it out of this method."""
        return False

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.tape = tape

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        operation = operation_of(func)
        if operation.composite:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        tape = self.tape
        call = Call(operation.name, args, kwargs, None)
        inputs = call.tensors()
        known = operation.name in _MAKERS or any([tape.is_known(tensor) for tensor in inputs])
        before = args[0] if operation.mutable and args and isinstance(args[0], Tensor) else None
        is_random = operation.random or any([is_noise(tensor) for tensor in inputs])
        if before is not None and (operation.name in _OVERWRITES or not uneven_axes(before, tape.of(before))):
            mark_noise(before)  # until the rule has run: it sees the values that were written
        out = func(*args, **kwargs)
        tape.op, tape.scale = operation.name, None
        passing: list[Labels] = []
        made: list[Shadow] = []
        numbers: Numbers = ()
        if not inputs:
            self._mark(out, FREE)
        elif known:
            shadows = [tape.of(tensor) for tensor in inputs]
            passing += [layer for shadow in shadows for layer in shadow.layers]
            self._apply(operation, Call(operation.name, args, kwargs, out), before)
            use_positions(tape, Call(operation.name, args, kwargs, out), shadows)
            made += [tape.of(tensor) for tensor in outputs_of(out)]
            tape.note_ends(shadows, made)
            if not is_random:
                numbers = numbers_of(tape, Call(operation.name, args, kwargs, out), shadows)
                passing += [layer for shadow in shadows if shadow.sum for layer in shadow.sum.layers]
        elif operation.name == "aten.lift_fresh" and out.numel() == 1:
            tape.mark(out, FREE)  # torch.tensor(number)
        if before is not None and not is_random:
            unmark_noise(before)
        for tensor in outputs_of(out) if is_random else ():
            mark_noise(tensor)
        tape.steps.append(Step(operation.name, passing, made, tape.scale, numbers))
        return out

    def _apply(self, operation: _Operation, call: Call, written: Tensor | None) -> None:
        """Let the rule note what it sees, and give the outputs their shadows."""
        tape = self.tape
        rule = operation.rule
        if rule is None:
            shadows = [tape.of(tensor) for tensor in call.tensors()]
            rule = protect_all if any(shadow.layers for shadow in shadows) else _of_no_channels
        result = rule(tape, call)
        if written is not None and isinstance(result, Shadow):
            note_write(tape, written, result, call.op)
        if isinstance(result, Shadow):
            self._mark(call.out, result)
            return
        for index, tensor in enumerate(call.out if isinstance(call.out, tuple | list) else [call.out]):
            if isinstance(tensor, Tensor):
                tape.mark(tensor, result[index] if index < len(result) else EMPTY)

    def _mark(self, out: Any, shadow: Shadow) -> None:
        """Give every tensor of an output the same shadow."""
        if isinstance(out, Tensor):
            self.tape.mark(out, shadow)
        elif isinstance(out, tuple | list):
            for item in out:
                if isinstance(item, Tensor):
                    self.tape.mark(item, shadow)


def _of_no_channels(tape: Tape, call: Call) -> Shadow:
    """An operation without a rule on tensors without channels."""
    return Shadow((), origin([tape.of(tensor) for tensor in call.tensors()]))


class _Watcher(TorchFunctionMode):
    """Sees what operations do not show: shapes that are read, and attention that computes its own scale.

    One backend of attention takes it apart before it is dispatched.
    """

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attention(args, kwargs)
        splits = len(self.tape.splits)
        if leaves(func) and self.tape.of(args[0]).kind is Kind.ACTIVATION:
            self.tape.protect_shadow(self.tape.of(args[0]), f"{OUTPUT}: read by code outside of PyTorch")
        result = func(*args, **kwargs)
        if copies(func):
            self.tape.mark(result, self.tape.of(args[0]))
        if reads_shape(func):
            return read_shape(self.tape, args[0], result)
        if is_view(func):
            tie_view(self.tape, args, kwargs, result, splits)
        if is_split(func):
            tie_split(self.tape, args, kwargs, result)
        return result

    def _attention(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        query, key = (*args, *(kwargs[name] for name in ("query", "key") if name in kwargs))[:2]
        op = "scaled_dot_product_attention"
        keep_scale(self.tape, self.tape.of(query), self.tape.of(key), op, kwargs.get("scale"))
        self.tape.notes_ends = False
        try:
            return F.scaled_dot_product_attention(*args, **kwargs)
        finally:
            self.tape.notes_ends = True


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
        return trace_call(model, given(example_inputs, forward), copies or {})
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
        with undisturbed(model), plain_operations(model):
            protect_outputs(tape, model, _run(model, example, tape))
            _run_in_training(model, example, tape)
            keep_widths_of_busy_queries(tape)
            tie_modules(tape, model)
            tie_copies(tape, model, tape.copies)
            _protect_unseen(model, example, tape)
    finally:
        for tensor in tensors_in((example.args, example.kwargs)):
            tape.unmark(tensor)
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
    noted, uses = len(tape.steps), len(tape.mac_uses)
    for module in modules:
        module.training = True
    # What is left is a failure of the user's own code in a mode that was not asked for.
    with suppress(TraceError):
        protect_outputs(tape, model, _run(model, example, tape))
    del tape.steps[noted:], tape.mac_uses[uses:]
    for module in modules:
        module.training = False


def _protect_unseen(model: nn.Module, example: Example, tape: Tape) -> None:
    """Protect what parts of the model may read that no run has used; a further run shows what passes by them."""
    names = unseen_modules(tape, model)
    if names:
        noted, uses = len(tape.steps), len(tape.mac_uses)
        tape.unseen = protect_unseen(tape, model, names, lambda: _run(model, example, tape))
        del tape.steps[noted:], tape.mac_uses[uses:]


def _run(model: nn.Module, example: Example, tape: Tape) -> Any:
    """Call the model under the tracer; failures say where."""
    try:
        with _Watcher(tape), _Tracer(tape):
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


@contextmanager
def plain_operations(model: nn.Module) -> Iterator[None]:
    """Switch off what would hide ordinary operations: fused attention's fast path, RNN primitives, compiled code."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    modules = list(model.modules())
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        if any(isinstance(module, nn.RNNBase) for module in modules):
            stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
            stack.callback(torch._C._set_cudnn_enabled, torch._C._get_cudnn_enabled())
            torch._C._set_cudnn_enabled(False)
        if any(p is not None and p.is_cuda for module in modules for p in module._parameters.values()):
            # Fused kernels pad the width of a head, which would pass for a size written into the code.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(_is_compiled(module) for module in modules):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _is_compiled(module: nn.Module) -> bool:
    """Whether a module runs through torch.compile."""
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
