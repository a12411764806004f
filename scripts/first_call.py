"""Time the first call on a network (trace and step) beside Torch-Pruning's (graph and step) and beside a forward.

    python scripts/first_call.py [--only GLOB] [--repeats 3] [--memory]

Needs torchvision and the extra `bench`. Both tools get their own copy of the same network and the same example, in
one process and turn by turn, and are asked for half of the channels; times are of the processor, on one thread, and
the shortest of the repeats. The peer's output layer is left to it: it prunes that too. With --memory every network
runs in a process of its own, whose highest resident memory is read instead, the lowest of the repeats.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from math import isnan
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from torchvision_models import declare_missing_operators

import gsprune
from gsprune.networks import ActorCritic, build_encoder

# Torchvision's classifiers with the sides of their pictures; the peer does not come back from Swin and MaxViT.
SMALL = """
alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 googlenet squeezenet1_0 mobilenet_v2
mobilenet_v3_small mobilenet_v3_large mnasnet0_5 efficientnet_b0 efficientnet_v2_s regnet_x_400mf regnet_y_400mf
shufflenet_v2_x1_0 convnext_tiny
"""
SIDES = {**dict.fromkeys(SMALL.split(), 64), "inception_v3": 96, "vit_b_32": 224, "resnet50 at 224": 224}


def builders() -> dict[str, tuple[Callable[[], nn.Module], Tensor]]:
    """Name -> how to make the network, and its example."""
    declare_missing_operators()
    from torchvision import models

    found: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
        f"impala tau={tau}": (lambda tau=tau: ActorCritic(build_encoder("impala", tau), 15), torch.rand(1, 3, 64, 64))
        for tau in (1, 4)
    }
    for name, size in SIDES.items():
        plain = name.partition(" ")[0]
        found[name] = (lambda p=plain: models.get_model(p, weights=None), torch.rand(1, 3, size, size))
    return found


def ours(model: nn.Module, x: Tensor) -> None:
    """Trace and first step."""
    gsprune.prune_step(model, 0.5, example_inputs=x)


def theirs(model: nn.Module, x: Tensor) -> None:
    """Graph and first step of Torch-Pruning."""
    import torch_pruning as tp

    criterion = tp.importance.MagnitudeImportance(p=1)
    tp.pruner.BasePruner(model, x, criterion, pruning_ratio=0.5, global_pruning=False).step()


def forward(model: nn.Module, x: Tensor) -> None:
    """One call without gradients."""
    with torch.no_grad():
        model(x)


TOOLS: dict[str, Callable[[nn.Module, Tensor], None]] = {"forward": forward, "ours": ours, "theirs": theirs}


def seconds(tool: Callable[[nn.Module, Tensor], None], model: nn.Module, x: Tensor) -> float:
    """Processor time of one call, on one thread; NaN where the tool fails."""
    started = time.process_time()
    try:
        tool(model, x)
    except Exception as error:
        print(f"  {tool.__name__}: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
        return float("nan")
    return time.process_time() - started


def timed(build: Callable[[], nn.Module], x: Tensor, repeats: int) -> dict[str, float]:
    """Shortest time of each tool."""
    model = build().eval()
    forward(model, x)
    times: dict[str, list[float]] = {name: [] for name in TOOLS}
    for _ in range(repeats):
        for name, tool in TOOLS.items():
            times[name].append(seconds(tool, copy.deepcopy(model), x))
    return {name: min(values) for name, values in times.items()}


def peak(tool: str, name: str) -> float:
    """Highest resident memory in MB that the network and a call take together, in a new process."""
    command = [sys.executable, __file__, "--child", tool, "--only", name]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    return float(run.stdout.split()[-1]) if run.returncode == 0 and run.stdout.strip() else float("nan")


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def print_peak(tool: str, name: str) -> None:
    """What `peak` runs: the tools warm up on a tiny network, then the highest mark is set back."""
    warm = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    TOOLS[tool](warm, torch.rand(1, 3, 8, 8))
    build, x = builders()[name]
    started = _resident("VmRSS")
    model = build().eval()
    Path("/proc/self/clear_refs").write_text("5")
    TOOLS[tool](model, x)
    print(_resident("VmHWM") - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="glob of names such as 'res*'")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="highest memory instead of time")
    parser.add_argument("--child", choices=TOOLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.child:
        print_peak(options.child, options.only)
        return
    unit = "MB" if options.memory else "ms"
    print(f"{'network':22} {'forward':>9} {'ours':>9} {'theirs':>9}   {unit}   ours/forward  ours/theirs")
    ratios = []
    if not options.memory:
        build, x = builders()["impala tau=1"]
        timed(build, x, 1)  # what is imported and compiled once
    for name, (build, x) in builders().items():
        if not fnmatch(name, options.only):
            continue
        if options.memory:
            found = {tool: min(peak(tool, name) for _ in range(options.repeats)) for tool in TOOLS}
        else:
            found = {tool: 1e3 * value for tool, value in timed(build, x, options.repeats).items()}
        ratio = found["ours"] / found["theirs"]
        ratios += [] if isnan(ratio) else [ratio]
        cells = " ".join(f"{found[tool]:9.1f}" for tool in TOOLS)
        print(f"{name:22} {cells}        {found['ours'] / found['forward']:9.1f}    {ratio:9.2f}", flush=True)
    if ratios:
        print(f"median ours/theirs {median(ratios):.2f}, highest {max(ratios):.2f}, of {len(ratios)}")


if __name__ == "__main__":
    main()
