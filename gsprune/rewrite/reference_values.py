"""Values that the operations of a rewritten network should compute: those of the masked dense network.

They show where a wrong output begins. They are read only after one was found.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from torch import Tensor, nn

from gsprune.errors import is_out_of_memory
from gsprune.rewrite.attention_scale import present_rows
from gsprune.rewrite.kept_populations import IncomparableError, KeptPopulations, gathered
from gsprune.rewrite.masking import masked_output
from gsprune.rewrite.multiplied_scales import MultipliedScales, tensors_with_multiplied_rows
from gsprune.rewrite.plan import RewritePlan
from gsprune.rewrite.session import Session
from gsprune.rewrite.transaction import temporary_data
from gsprune.tracing.call import outputs_of
from gsprune.tracing.example import Example
from gsprune.tracing.graph import Queries
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.structure import Structure
from gsprune.tracing.temporary_eval import temporary_eval
from gsprune.tracing.trail import Axes, Scale

__all__ = ["Sample", "reference_values", "sample"]

Sample = Tensor | None
"""A few values of one tensor, in float64 on the CPU; None if they cannot be compared."""

_SAMPLE_SIZE = 64


class _Recording(KeptPopulations):
    """Keeps samples of what every operation computes for the kept channels.

    Attributes:
        samples: per operation one sample per output.
    """

    def __init__(self, before: Structure, after: Structure) -> None:
        super().__init__(before, after)
        self.samples: list[tuple[Sample, ...]] = []

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation and sample its outputs.

        Raises:
            IncomparableError: it draws random numbers, of which a smaller network draws fewer; or as in the base class.
        """
        if operation.random:
            raise IncomparableError(f"{operation.name} draws random numbers")
        result = super().run(func, operation, args, kwargs)
        axes = self.trail[len(self.samples)].outputs
        outputs = zip(outputs_of(result), axes, strict=False)
        self.samples.append(tuple(None if own is None else self._sample(tensor, own) for tensor, own in outputs))
        return result

    def _sample(self, tensor: Tensor, axes: Axes) -> Sample:
        try:
            return sample(gathered(tensor, self.cuts(axes)))
        except IncomparableError:
            return None


def reference_values(session: Session, plan: RewritePlan, after: Structure) -> list[tuple[Sample, ...]]:
    """Samples of what the masked dense network computes, per operation, up to the first that cannot be compared.

    Scales of attention and rows of queries are those of the smaller network.

    Raises:
        Exception: memory ran out.
    """
    model, before = session.model, session.groups
    recording = _Recording(before, after)
    old, new = before.kept(), after.kept()

    def factor_of_scale(scale: Scale) -> float:
        kept, length = after.kept_positions(before, scale.labels)
        return float((len(kept) / length) ** (-0.5 * scale.exponent))

    def factor_of_rows(entry: Queries) -> float:
        return sqrt(len(present_rows(new, entry)) / len(present_rows(old, entry)))

    def call(model: nn.Module, example: Example) -> Any:
        with plain_operations(model), recording, MultipliedScales(before.traced.trail, factor_of_scale):
            return example.call(model)

    changed = tensors_with_multiplied_rows(session, factor_of_rows)
    tensors = session.bound.tensors
    assert session.example is not None
    try:
        with temporary_eval(model), temporary_data([tensors[name] for name in changed], list(changed.values())):
            masked_output(model, session.example, tensors, plan.kept, call)
    except Exception as error:
        if is_out_of_memory(error):
            raise
    return recording.samples


def sample(tensor: Tensor) -> Sample:
    """A few values, evenly distributed; None if the tensor holds no floating-point numbers."""
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    values = tensor.detach().reshape(-1)
    return values[:: max(1, len(values) // _SAMPLE_SIZE)].double().cpu()
