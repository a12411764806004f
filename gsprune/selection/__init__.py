"""Chooses the units to keep from scores and a target."""

from gsprune.selection.cost import CostModel as CostModel
from gsprune.selection.cost import dense_shapes as dense_shapes
from gsprune.selection.options import SCOPES as SCOPES
from gsprune.selection.options import TARGETS as TARGETS
from gsprune.selection.options import Scope as Scope
from gsprune.selection.options import Selection as Selection
from gsprune.selection.options import Target as Target
from gsprune.selection.options import group_layers as group_layers
from gsprune.selection.options import matching_groups as matching_groups
from gsprune.selection.select import select_units as select_units
from gsprune.selection.shortfall import Shortfall as Shortfall
from gsprune.selection.shortfall import shortfall as shortfall
