"""Importance scores of units: criteria, reductions and normalizers."""

from gsprune.importance.activation import Activation as Activation
from gsprune.importance.criterion import CRITERIA as CRITERIA
from gsprune.importance.criterion import Criterion as Criterion
from gsprune.importance.criterion import ScoreSource as ScoreSource
from gsprune.importance.criterion import register_criterion as register_criterion
from gsprune.importance.distance import Fpgm as Fpgm
from gsprune.importance.function import FromFunction as FromFunction
from gsprune.importance.gradient import Hessian as Hessian
from gsprune.importance.gradient import Taylor as Taylor
from gsprune.importance.importance import Importance as Importance
from gsprune.importance.importance import resolve_importance as resolve_importance
from gsprune.importance.magnitude import L1 as L1
from gsprune.importance.magnitude import L2 as L2
from gsprune.importance.magnitude import Lamp as Lamp
from gsprune.importance.norm_scale import NormScale as NormScale
from gsprune.importance.random import Random as Random
