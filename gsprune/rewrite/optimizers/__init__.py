"""Slices optimizer states with their parameters. `register_state_handler` adds a rule for an optimizer class."""

from gsprune.rewrite.optimizers.lbfgs import HistoryReset as HistoryReset
from gsprune.rewrite.optimizers.registry import StateHandler as StateHandler
from gsprune.rewrite.optimizers.registry import register_state_handler as register_state_handler
from gsprune.rewrite.optimizers.states import StateSlicer as StateSlicer
