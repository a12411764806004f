"""Gradual group-structured pruning of PyTorch networks while they train, with a compiled core."""

# The first import: the modules below need the compiled core.
from gsprune.core import loader as loader  # isort: split

from gsprune import schedules as schedules
from gsprune.checkpoint import load as load
from gsprune.checkpoint import save as save
from gsprune.engines import LatencyBudget as LatencyBudget
from gsprune.engines.latency import latencies as latencies
from gsprune.engines.latency import latency as latency
from gsprune.errors import CheckpointError as CheckpointError
from gsprune.errors import DistributedError as DistributedError
from gsprune.errors import ExportError as ExportError
from gsprune.errors import GspruneError as GspruneError
from gsprune.errors import MissingExtraError as MissingExtraError
from gsprune.errors import PruneWarning as PruneWarning
from gsprune.errors import RewriteError as RewriteError
from gsprune.errors import ScoreError as ScoreError
from gsprune.errors import TraceError as TraceError
from gsprune.exporting import export as export
from gsprune.importance import Criterion as Criterion
from gsprune.importance import Importance as Importance
from gsprune.pruning.compact import compact as compact
from gsprune.pruning.cost import cost as cost
from gsprune.pruning.prune_step import prune_step as prune_step
from gsprune.pruning.prune_step import trace as trace
from gsprune.pruning.pruner import Pruner as Pruner
from gsprune.pruning.report import PruneReport as PruneReport
from gsprune.pruning.sensitivity import sensitivity as sensitivity
from gsprune.tracing.graph import Graph as Graph

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Criterion",
    "DistributedError",
    "ExportError",
    "Graph",
    "GspruneError",
    "Importance",
    "LatencyBudget",
    "MissingExtraError",
    "PruneReport",
    "PruneWarning",
    "Pruner",
    "RewriteError",
    "ScoreError",
    "TraceError",
    "compact",
    "cost",
    "export",
    "latencies",
    "latency",
    "load",
    "prune_step",
    "save",
    "schedules",
    "sensitivity",
    "trace",
]
