import copy

import pytest
import torch
from torch import nn

from gsprune.rl.training.compilation import StableWidthCompiler


class CountingBackend:
    """Compiles nothing, but counts how often dynamo asks it to."""

    def __init__(self):
        self.calls = 0

    def __call__(self, graph, example_inputs):
        del example_inputs
        self.calls += 1
        return graph.forward


def shrink(model, width):
    """New widths in the same Parameter objects, as a pruning step leaves them."""
    with torch.no_grad():
        model[0].weight.set_(model[0].weight[:width].clone())
        model[0].bias.set_(model[0].bias[:width].clone())
        model[2].weight.set_(model[2].weight[:, :width].clone())
    model[0].out_features = model[2].in_features = width


@pytest.fixture
def compiled():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    backend, lines = CountingBackend(), []
    compilation = StableWidthCompiler(True, lines.append, backend=backend)
    yield model, backend, lines, compilation
    torch.compiler.reset()


def test_a_pruned_run_compiles_at_most_six_times_and_only_while_widths_are_stable(compiled):
    model, backend, lines, compilation = compiled
    plain = copy.deepcopy(model)
    functions = [
        compilation.wrap(name, lambda x, scale=scale: model(x) * scale) for name, scale in (("a", 1), ("b", 2))
    ]
    x = torch.randn(4, 3)

    def check():
        for function, scale in zip(functions, (1, 2), strict=True):
            torch.testing.assert_close(function(x), plain(x) * scale)
            with torch.no_grad():
                function(x)

    compilation.set_stable(True)
    check()
    check()
    assert backend.calls == compilation.compilations == 4
    for width in range(15, 4, -1):
        for network in (model, plain):
            shrink(network, width)
        compilation.set_stable(False)
        check()
        assert backend.calls == 4
    compilation.set_stable(True)
    check()
    check()
    assert backend.calls == compilation.compilations == 6
    assert sum(line.startswith("compiled ") for line in lines) == 6
    assert sum("widths change from now on" in line for line in lines) == 1
    assert sum("stays eager: all 6 compilations" in line for line in lines) == 2


def test_gradients_of_a_compiled_network_are_those_of_the_eager_one(compiled):
    model, backend, _, compilation = compiled
    function = compilation.wrap("loss", lambda x: model(x).square().mean())
    x = torch.randn(4, 3)
    gradients = []
    for stable in (False, True):
        compilation.set_stable(stable)
        model.zero_grad()
        function(x).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert backend.calls == 1
    for eager, fast in zip(*gradients, strict=True):
        torch.testing.assert_close(eager, fast)


def test_switched_off_nothing_is_compiled_or_logged(compiled):
    model, _, lines, _ = compiled
    backend = CountingBackend()
    compilation = StableWidthCompiler(False, lines.append, backend=backend)
    function = compilation.wrap("forward", model)
    compilation.set_stable(True)
    function(torch.randn(4, 3))
    assert (backend.calls, lines) == (0, [])


def test_a_resumed_run_counts_on(compiled):
    model, backend, _, compilation = compiled
    compilation.compilations = 6
    compilation.set_stable(True)
    compilation.wrap("forward", model)(torch.randn(4, 3))
    assert backend.calls == 0
