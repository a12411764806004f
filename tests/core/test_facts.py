"""Facts that C++, Python and Triton share have one source, the core; the definition in plain torch knows the same."""

from __future__ import annotations

import pytest
import torch

from gsprune import _core
from gsprune.kernels import reference


def test_the_definition_knows_every_statistic_of_the_core_and_no_other() -> None:
    weight, other = torch.tensor([[-2.0, 3.0]]), torch.tensor([[5.0, -7.0]])
    values = {"abs": 5, "square": 13, "product": -31, "abs_product": 31, "square_product": 541}
    assert tuple(values) == _core.score.STATISTICS
    for statistic, expected in values.items():
        assert reference.axis_sums(weight, (0,), other, statistic)[0].tolist() == [expected]
        sums = _core.score.axis_sums([weight], [(0,)], [other], statistic, 1, "plain")
        assert sums.tolist() == [expected]


def test_every_dtype_of_the_core_can_be_summed() -> None:
    for name in _core.tensor.FLOAT_DTYPES:
        weight = torch.tensor([1.5, -2.25], dtype=getattr(torch, name))
        assert _core.score.axis_sums([weight], [(0,)], None, "abs", 1, "plain").tolist() == [1.5, 2.25]


def test_the_kernels_number_statistics_as_the_core_does() -> None:
    pytest.importorskip("triton", minversion="3.4")
    triton = pytest.importorskip("gsprune.kernels.score")
    assert list(triton.STATISTIC_CODES) == list(_core.score.STATISTICS)
    assert list(triton.STATISTIC_CODES.values()) == list(range(len(_core.score.STATISTICS)))
