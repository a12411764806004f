"""Engines run networks on a device. This package also has the widths that suit them and measures latency."""

from gsprune.engines.budget import LatencyBudget as LatencyBudget
from gsprune.engines.engine import Engine as Engine
from gsprune.engines.portable_call import PortableCall as PortableCall
from gsprune.engines.registry import ENGINES as ENGINES
from gsprune.engines.registry import register_engine as register_engine
from gsprune.engines.timing import Forward as Forward
from gsprune.engines.timing import Latency as Latency
from gsprune.engines.widths import WIDTH_MULTIPLES as WIDTH_MULTIPLES
from gsprune.engines.widths import RoundTo as RoundTo
from gsprune.engines.widths import WidthPreset as WidthPreset
from gsprune.engines.widths import multiple_of as multiple_of
