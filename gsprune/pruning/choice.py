"""Scores the units and chooses those to keep."""

from __future__ import annotations

from gsprune.arrays import BoolArray
from gsprune.backends import Backend
from gsprune.importance import ScoreSource
from gsprune.pruning.options import StepOptions
from gsprune.rewrite.session import Session
from gsprune.selection import select_units

__all__ = ["choose_units"]


def choose_units(
    session: Session, options: StepOptions, backend: Backend, frozen: frozenset[str]
) -> tuple[BoolArray, list[str]]:
    """Choose the units to keep. Groups in `frozen` keep their width.

    Scores that depend on data are averaged over the ranks of a process group.

    Returns:
        (units,) bool, True for the units to keep; and the criterion's notes for the report.

    Raises:
        ScoreError: a score is not finite.
        ValueError: an option does not fit the model.
    """
    consensus = options.consensus
    source = ScoreSource(
        session.groups,
        frozen,
        session.bound.tensors,
        backend,
        session.model,
        session.example,
        options.calibration,
        None if consensus is None else consensus.stacked,
    )
    scores = options.importance.unit_scores(source, average=None if consensus is None else consensus.mean)
    keep = select_units(
        session.groups, scores, session.initial_widths, options.selection, backend=backend, frozen=frozen
    )
    return keep, source.notes
