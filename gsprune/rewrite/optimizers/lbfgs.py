"""L-BFGS: its history has flat vectors over all parameters, whose inner products would be wrong after slicing."""

from __future__ import annotations

from torch.optim import LBFGS, Optimizer

from gsprune.rewrite.optimizers.registry import register_state_handler
from gsprune.rewrite.optimizers.states import StateSlicer

__all__ = ["HistoryReset"]


class HistoryReset:
    """Resets the history of an L-BFGS optimizer if one of its parameters is cut."""

    def slice_state(self, optimizer: Optimizer, slicer: StateSlicer) -> None:
        """Reset the history."""
        parameters = optimizer.param_groups[0]["params"]
        if not any(slicer.cut_of(parameter) for parameter in parameters):
            return
        slicer.set(optimizer.__dict__, "_numel_cache", None)
        state = optimizer.state.get(parameters[0])
        if state:
            # With n_iter 0 the next step begins with steepest descent. The counter of evaluations is kept.
            slicer.set(optimizer.state, parameters[0], {"func_evals": state.get("func_evals", 0), "n_iter": 0})
        slicer.note("the history of L-BFGS was reset")


register_state_handler(LBFGS, HistoryReset())
