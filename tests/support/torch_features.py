"""Marks for tests of what only newer releases of torch have."""

import pytest
import torch

needs_exchange_table = pytest.mark.skipif(
    not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"),
    reason="the core's own memory and fast reading of tensors need DLPack's exchange table: torch 2.10",
)
