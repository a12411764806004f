"""What runs a network on a device: which widths it likes, how it is called, how long it takes."""

from gsprune.engines.budget import LatencyBudget as LatencyBudget
from gsprune.engines.engine import EngineName as EngineName
from gsprune.engines.widths import WIDTH_MULTIPLES as WIDTH_MULTIPLES
from gsprune.engines.widths import RoundTo as RoundTo
from gsprune.engines.widths import WidthPreset as WidthPreset
from gsprune.engines.widths import multiple_of as multiple_of
