"""Base class of the dispatch modes that see every operation of a forward."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from gsprune.tracing.rules.registry import Operation, operation_of

__all__ = ["OperationMode"]


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Passes every operation to `run`. Composite operations without a rule are decomposed first."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here

    def __init_subclass__(cls) -> None:  # typed, so that mypy accepts subclasses: torch's is not
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, which takes seconds, on the first operation."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        operation = operation_of(func)
        if operation.composite:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return self.run(func, operation, args, kwargs)

    @abstractmethod
    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation `func`, a ``torch._ops.OpOverload``, and return its result."""
