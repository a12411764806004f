"""The elements of a forward's tensors that depend on the network's inputs; all others are constants of the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gsprune.compensation.dependence_rules import PendingCall, rule_of
from gsprune.tracing.call import Call, outputs_of
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.rules.registry import Operation

__all__ = ["InputDependence"]


class InputDependence(OperationMode):
    """Finds the elements that depend on the inputs, and those that only depend on weights.

    Every storage has a mask with one bool per element, so views need no rules. All elements of a tensor that no watched
    operation made (an input) are dependent. So are all outputs of an operation without a rule that reads a dependent
    element, and values that depend on the size of the inputs.

    Args:
        tensors: the parameters and buffers of the network.

    Attributes:
        code_depends: True if the code has read a number that depends on the inputs, so other operations may follow.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        # Address -> (storage, which stays alive so that no other one gets its address; element size; mask).
        self._masks: dict[int, tuple[torch.UntypedStorage, int, Tensor]] = {}
        self.code_depends = False
        for tensor in tensors:
            self._set(tensor, False)

    def mask(self, tensor: Tensor) -> Tensor:
        """Bool of the tensor's shape: True where an element depends on the inputs."""
        if tensor.layout == torch.strided and not self.code_depends:
            _, size, mask = self._masks.get(_address(tensor), (None, 0, tensor))
            if size == tensor.element_size():
                return mask.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        return torch.ones(tensor.shape, dtype=torch.bool, device=tensor.device)

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation and note which of its outputs' elements depend on the inputs."""
        inputs = Call(operation.name, args, kwargs).tensors()
        is_fresh = operation.name == "aten.lift_fresh"  # a tensor of numbers written in the code
        depends = not is_fresh and any(bool(self.mask(tensor).any()) for tensor in inputs)
        rule = rule_of(operation)
        # Before the operation, which may overwrite an input.
        masks = rule(PendingCall(func, args, kwargs, self.mask)) if depends and rule is not None else []
        result = func(*args, **kwargs)
        if depends and torch.Tag.data_dependent_output in func.tags:
            self.code_depends = True
        addresses = set(map(_address, inputs))
        for index, output in enumerate(outputs_of(result)):
            if is_fresh or operation.mutable or _address(output) not in addresses:  # no view
                is_random = operation.random and rule is None
                self._set(output, masks[index] if index < len(masks) else depends or is_random)
        if operation.mutable and not outputs_of(result):
            for tensor in inputs:
                self._set(tensor, depends)
        return result

    def _set(self, tensor: Tensor, mask: Tensor | bool) -> None:
        """Set the mask of a tensor: a mask of its elements, or one bool for all."""
        if tensor.layout != torch.strided:
            return
        storage, size = tensor.untyped_storage(), tensor.element_size()
        if self._masks.get(_address(tensor), (None, 0))[1] != size:
            whole = torch.zeros(storage.nbytes() // size, dtype=torch.bool, device=tensor.device)
            self._masks[_address(tensor)] = (storage, size, whole)
        own = self._masks[_address(tensor)][2].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        own.copy_(mask) if isinstance(mask, Tensor) else own.fill_(mask)


def _address(tensor: Tensor) -> int:
    """Address of a tensor's memory; -1 of a sparse one."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else -1
