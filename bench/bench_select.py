"""Choosing the channels to keep: one group's width, and all channels of a large network at once."""

from __future__ import annotations

import numpy as np
import pytest
from cases import extra_info

from gsprune.backends import CppBackend, TorchBackend

PROVIDERS = {"cpp": CppBackend(), "torch": TorchBackend()}


@pytest.mark.parametrize("num_scores", [32, 2048, 1_000_000])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_select(benchmark, num_scores: int, provider: str) -> None:
    benchmark.group = f"select {num_scores}"
    scores = np.random.default_rng(0).normal(size=num_scores).astype(np.float32)
    scores[::7] = scores[0]  # ties
    keep = int(0.95 * num_scores)
    expected = np.zeros(num_scores, dtype=bool)
    expected[np.argsort(-scores, kind="stable")[:keep]] = True
    benchmark.extra_info.update(extra_info("none"), provider=provider)
    kept = benchmark(PROVIDERS[provider].select_groups, scores, np.array([0, num_scores]), np.array([keep]))
    np.testing.assert_array_equal(kept, expected)
