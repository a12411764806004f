"""Sensitivity of the output to the removal of channels: a table by group, for choosing sparsities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from glob import escape
from typing import Any

import numpy as np
from torch import Tensor, nn

from gsprune.arrays import BoolArray, Float32Array, IntArray
from gsprune.backends import BackendName, get_backend
from gsprune.checks import check_choice, check_number
from gsprune.compensation.calibration import calibration_calls
from gsprune.compensation.compensation import Compensation
from gsprune.importance import Criterion, Importance, ScoreSource, resolve_importance
from gsprune.pruning.calibration_data import Compensate, check_calibration_data
from gsprune.pruning.execution import execute
from gsprune.pruning.ignore import ignored_groups
from gsprune.pruning.session import open_session, with_binding
from gsprune.rewrite.masking import masked_output
from gsprune.rewrite.network import RewriteOptions
from gsprune.rewrite.tensors import canonical_tensors, unwrapped
from gsprune.selection import Selection, select_units
from gsprune.tracing.relative_change import relative_change
from gsprune.tracing.structure import Structure
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["Sensitivity", "SensitivityRow", "sensitivity"]


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """One group at one ratio.

    Attributes:
        group: name of the group.
        ratio: fraction of the present width to remove.
        width: present width.
        removed: units that were masked.
        score_lost: the removed units' share of the sum of the group's scores.
        output_change: ‖y' - y‖₂ / ‖y‖₂, with y the outputs on the example and y' those without the removed units; with
            compensation, y are the outputs on the calibration data and y' those of the compensated network.
    """

    group: str
    ratio: float
    width: int
    removed: IntArray
    score_lost: float
    output_change: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A table of rows: groups in the order of the network, ratios ascending.

    Attributes:
        rows: one per group and ratio.
        ratios: the ratios.
    """

    rows: tuple[SensitivityRow, ...]
    ratios: tuple[float, ...]

    def __str__(self) -> str:
        by_group: dict[str, list[SensitivityRow]] = {}
        for row in self.rows:
            by_group.setdefault(row.group, []).append(row)
        column = max([5, *(len(name) for name in by_group)])
        head = " ".join(f"{f'{ratio:.0%}':>13}" for ratio in self.ratios)
        lines = ["score lost / relative change of the output, by fraction of the group removed"]
        lines.append(f"{'group':<{column}} {'width':>6} {head}")
        for name, rows in by_group.items():
            cells = " ".join(f"{row.score_lost:>6.1%} {row.output_change:>6.2g}" for row in rows)
            lines.append(f"{name:<{column}} {rows[0].width:>6} {cells}")
        return "\n".join(lines)


def sensitivity(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    forward: Callable[..., Any] | None = None,
    ratios: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9),
    importance: str | Importance | Criterion | Callable[[Tensor], Tensor] = "l1",
    ignore: Sequence[str | nn.Module | type] = (),
    backend: BackendName = "auto",
    compensate: Compensate = "none",
    calibration: Any = None,
) -> Sensitivity:
    """Measure how the output changes if a growing part of one group is masked. The model is not changed.

    With `compensate`, the part is removed, compensated and put back instead.

    Args:
        model: the network, dense or pruned.
        example_inputs: tensor, tuple or dict; real data gives more meaningful results than noise. None uses the example
            of earlier steps, or generates one.
        forward: callable(model, *example_inputs) -> outputs; None uses that of earlier steps, or calls the model.
        ratios: fractions of the present width, each in [0, 1).
        importance: as in `gsprune.prune_step`.
        ignore: as in `gsprune.prune_step`; these groups are omitted.
        backend: as in `gsprune.prune_step`.
        compensate: as in `gsprune.prune_step`.
        calibration: as in `gsprune.prune_step`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: a ratio is outside [0, 1), or another argument is invalid.
        TraceError: the network cannot be traced.
        ScoreError: a group cannot be scored.
        RewriteError: with `compensate`, the smaller network could not be built or failed its check.
    """
    module = unwrapped(model)
    if not isinstance(ratios, list | tuple):
        raise TypeError(f"`ratios` must be a list or tuple of numbers in [0, 1), got {type(ratios).__name__}")
    for index, ratio in enumerate(ratios):
        check_number(f"ratios[{index}]", ratio, at_least=0, below=1)
    check_choice("compensate", compensate, ("none", "bias", "linear"))
    criterion = resolve_importance(importance)
    check_calibration_data(criterion, compensate, calibration, example_inputs)
    session = open_session(module, example_inputs, forward)
    graph, example = session.groups.graph, session.example
    if example is None:
        raise ValueError("`example_inputs` is needed: the model was loaded or pickled without its example")
    tensors = canonical_tensors(module)
    frozen = ignored_groups(module, graph, ignore)
    chosen_backend = get_backend(backend, next(iter(tensors.values())).device)
    structure = Structure(graph)
    calls = []
    if compensate != "none" or calibration is not None:
        calls = calibration_calls(calibration, example)
    source = ScoreSource(structure, frozen, tensors, chosen_backend, module, example, calls)
    scores = criterion.unit_scores(source)
    with temporary_eval(module):
        dense = example.call(module)
    rows = []
    for group, first, last in structure.spans():
        for ratio in sorted(ratios) if group.name not in frozen else ():
            # Without first-seen widths the ratio refers to the present width. Names may contain characters of globs.
            request = Selection({escape(group.name): ratio})
            keep = select_units(structure, scores, {}, request, backend=chosen_backend)
            units = np.flatnonzero(~keep[first:last])
            if compensate == "none":
                with temporary_eval(module):
                    output = masked_output(module, example, tensors, structure.pruned(keep)[0].kept())
                change = relative_change(output, dense)
            else:
                compensation = Compensation(calls, compensate, measures_change=True)
                rewrite = RewriteOptions(chosen_backend, compensation, dry_run=True)
                choose = partial(_with_frozen, structure, keep)
                execute(with_binding(module, session), choose, request, ignore, rewrite)
                change = 0.0 if compensation.change is None else compensation.change.compensated
            score_lost = _share(scores[first:last], units)
            rows.append(SensitivityRow(group.name, float(ratio), group.width, units, score_lost, change))
    return Sensitivity(tuple(rows), tuple(sorted(float(ratio) for ratio in ratios)))


def _with_frozen(structure: Structure, keep: BoolArray, frozen: frozenset[str]) -> tuple[BoolArray, Sequence[str]]:
    """`keep`, and all units of the groups in `frozen`, whose width the network's code relies on."""
    keep = keep.copy()
    for group, first, last in structure.spans():
        keep[first:last] |= group.name in frozen
    return keep, ()


def _share(scores: Float32Array, units: IntArray) -> float:
    wide = scores.astype(np.float64)
    total = float(wide.sum())
    return float(wide[units].sum()) / total if total > 0 else 0.0
