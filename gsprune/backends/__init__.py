"""Backends: providers of the operations that touch every weight (sums along axes, selection, slicing)."""

from gsprune.backends.cpp import CppBackend as CppBackend
from gsprune.backends.cpp import bind_torch as bind_torch
from gsprune.backends.protocol import Backend as Backend
from gsprune.backends.protocol import BackendName as BackendName
from gsprune.backends.protocol import Pattern as Pattern
from gsprune.backends.registry import get_backend as get_backend
from gsprune.backends.torch import TorchBackend as TorchBackend
