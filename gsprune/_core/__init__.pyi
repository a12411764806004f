from gsprune._core import launch as launch
from gsprune._core import machine as machine
from gsprune._core import memory as memory
from gsprune._core import score as score
from gsprune._core import select as select
from gsprune._core import slice as slice
from gsprune._core import tensor as tensor

sources: str
