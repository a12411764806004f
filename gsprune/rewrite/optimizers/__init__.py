"""State that optimizers keep for parameters, sliced along with them; `register_state_handler` adds a kind."""

from gsprune.rewrite.optimizers.lbfgs import HistoryReset as HistoryReset
from gsprune.rewrite.optimizers.registry import StateHandler as StateHandler
from gsprune.rewrite.optimizers.registry import register_state_handler as register_state_handler
from gsprune.rewrite.optimizers.states import StateSlicer as StateSlicer
