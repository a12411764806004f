from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from by_group import SumJob, axis_sums

from gsprune.backends import CppBackend, get_backend

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "expected"), [("auto", "cpp"), ("cpp", "cpp"), ("torch", "torch")])
def test_a_name_gets_its_provider_on_the_cpu(name: str, expected: str) -> None:
    assert get_backend(name, CPU).name == expected  # type: ignore[arg-type]


def test_auto_serves_other_devices_with_torch() -> None:
    assert get_backend("auto", torch.device("meta")).name == "torch"


def test_a_provider_that_cannot_serve_the_device_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"'cpp' works on CPU tensors.*'cuda:0'.*use backend='auto'"):
        get_backend("cpp", torch.device("cuda:0"))
    with pytest.raises(ValueError, match="must be 'auto', 'cpp', 'triton' or 'torch', got 'fast'"):
        get_backend("fast", CPU)  # type: ignore[arg-type]


def test_both_providers_agree_through_the_common_interface() -> None:
    weight = torch.randn(6, 5, 3, 3, requires_grad=True)
    gradient = torch.randn(6, 5, 3, 3)
    patterns = [((0, np.array([0, 3, 5])), (1, np.array([1, 2]))), ((0, np.array([2])),)]
    answers = []
    for backend in (get_backend("cpp", CPU), get_backend("torch", CPU)):
        sums = axis_sums(backend, [SumJob(weight, (0, 1)), SumJob(weight, (1,), gradient)], "abs")
        slices = backend.slice([weight, gradient, weight], patterns, [0, 0, 1])
        assert not any(sliced.requires_grad for sliced in slices)
        answers.append((sums, slices))
    (cpp_sums, cpp_slices), (torch_sums, torch_slices) = answers
    for got, wanted in zip(cpp_sums, torch_sums, strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13)
    assert all(torch.equal(a, b) for a, b in zip(cpp_slices, torch_slices, strict=True))


def test_the_number_of_threads_must_be_positive() -> None:
    with pytest.raises(ValueError, match="`num_threads` must be >= 1 or None, got 0"):
        CppBackend(num_threads=0)


def test_the_environment_forces_an_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSPRUNE_ISA", "no such set")
    with pytest.raises(ValueError, match="got 'no such set'"):
        axis_sums(CppBackend(), [SumJob(torch.ones(2, 2), (0,))], "abs")
    ((sums,),) = axis_sums(CppBackend(isa="plain"), [SumJob(torch.ones(2, 2), (0,))], "abs")
    assert sums.tolist() == [2.0, 2.0]


def test_a_triton_too_old_is_named() -> None:
    program = "import sys, types, torch, gsprune.backends\n"
    program += "old = types.ModuleType('triton')\nold.language = types.ModuleType('triton.language')\n"
    program += "sys.modules.update({'triton': old, 'triton.language': old.language})\n"
    program += "gsprune.backends.get_backend('triton', torch.device('cuda'))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MissingExtraError: this needs 'triton>=3.4'" in run.stderr
    assert "pip install -c constraints.txt '.[triton]'" in run.stderr


def test_triton_is_imported_only_when_asked_for() -> None:
    program = "import sys, gsprune.backends, torch\n"
    program += "gsprune.backends.get_backend('auto', torch.device('cpu'))\nprint('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
