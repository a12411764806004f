"""Write docs/networks.md: which public networks are pruned, how exactly, and what stays protected.

    python scripts/network_table.py [--only GLOB] [--output docs/networks.md]

Needs torchvision, timm and transformers beside gsprune; what is missing is left out and said so. Networks have random
weights. Layer, group and RMS norms read all channels at once, so that no sliced network that has them can equal the
masked one; for the comparison alone they are replaced by their affine part, which shows that the right channels went.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from masked_networks import masked_copy
from torchvision_models import declare_missing_operators

import gsprune
from gsprune.tracing import trace
from gsprune.tracing.outputs import tensors_in

TORCHVISION = """
alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 googlenet inception_v3 squeezenet1_0
mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 efficientnet_b0 efficientnet_v2_s regnet_x_400mf
regnet_y_400mf shufflenet_v2_x1_0 convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t
segmentation/fcn_resnet50 segmentation/deeplabv3_mobilenet_v3_large segmentation/lraspp_mobilenet_v3_large
"""
TIMM = """
convnextv2_atto mixer_s32_224 vit_tiny_patch16_224 swin_tiny_patch4_window7_224 resnet26d seresnet50 ecaresnet26t
res2net50_26w_4s dla34 hrnet_w18_small repvgg_a0 ghostnet_100 mobilenetv4_conv_small tinynet_e mixnet_s nfnet_l0
poolformer_s12 mobilevit_xxs xcit_nano_12_p16_224 cait_xxs24_224 levit_128s coatnet_pico_rw_224 fastvit_t8 gmlp_ti16_224
edgenext_xx_small starnet_s1 skresnet18 resnest14d dpn68 resnetv2_50
"""
TRANSFORMERS = """
ViT ResNet ConvNextV2 Swin Dinov2 Segformer PoolFormer RegNet
"""
_SIZES = {"inception_v3": 96, "vit": 224, "maxvit": 224, "nasnetalarge": 331}


@dataclass
class Row:
    """One network's line."""

    name: str
    result: str
    parameters: str = ""
    error: str = ""
    protected: str = ""
    ratio: str = ""


@contextmanager
def affine_norms() -> Iterator[None]:
    """Norms over channels do no more than scale and shift."""

    def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        x = x if weight is None else x * weight.view(shape)
        return x if bias is None else x + bias.view(shape)

    def layer(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Tensor:
        return affine(x, weight, bias, tuple(x.shape[x.ndim - len(shape) :]))

    def group(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Tensor:
        return affine(x, weight, bias, (-1, *[1] * (x.ndim - 2)))

    def rms(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
        return affine(x, weight, None, tuple(x.shape[x.ndim - len(shape) :]))

    with (
        mock.patch.object(F, "layer_norm", layer),
        mock.patch.object(F, "group_norm", group),
        mock.patch.object(F, "rms_norm", rms),
    ):
        yield


def torchvision_networks() -> Iterator[tuple[str, Callable[[], nn.Module], Tensor]]:
    """Name, builder and example of torchvision's classifiers and segmentation heads."""
    declare_missing_operators()
    from torchvision import models

    for name in TORCHVISION.split():
        options = {"weights": None, "weights_backbone": None, "num_classes": 10}
        if not name.startswith("segmentation/"):
            del options["weights_backbone"]
        plain = name.rpartition("/")[2]
        size = _SIZES.get(plain, _SIZES.get(plain.split("_")[0], 64))
        yield f"torchvision {plain}", lambda p=plain, o=options: models.get_model(p, **o), torch.rand(2, 3, size, size)


def timm_networks() -> Iterator[tuple[str, Callable[[], nn.Module], Tensor]]:
    """The same of timm."""
    declare_missing_operators()
    import timm

    known = set(timm.list_models())
    for name in TIMM.split():
        if name in known:
            shape = timm.get_pretrained_cfg(name).input_size if timm.is_model_pretrained(name) else (3, 224, 224)
            yield f"timm {name}", lambda n=name: timm.create_model(n, num_classes=10), torch.rand(1, *shape)


def transformers_networks() -> Iterator[tuple[str, Callable[[], nn.Module], Tensor]]:
    """The same of transformers, with the default configuration of each backbone."""
    declare_missing_operators()
    import transformers

    for name in TRANSFORMERS.split():
        names = {key.lower(): key for key in dir(transformers)}
        model, config = names.get(f"{name}model".lower()), names.get(f"{name}config".lower())
        if model is not None and config is not None:
            built = lambda m=model, c=config: getattr(transformers, m)(getattr(transformers, c)())  # noqa: E731
            size = getattr(getattr(transformers, config)(), "image_size", 224)
            size = size if isinstance(size, int) else 224
            yield f"transformers {model}", built, torch.rand(1, 3, size, size)


def randomize(model: nn.Module) -> None:
    """Nothing is hidden by zero scales: norms and biases get random values."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.5 + 0.5)
            elif float(parameter.abs().max()) == 0.0:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.02)


def examine(name: str, build: Callable[[], nn.Module], x: Tensor) -> Row:
    """Prune half of the channels of one network."""
    torch.manual_seed(0)
    model = build().eval()
    randomize(model)
    with torch.no_grad():
        started = time.process_time()
        model(x)
        forward = time.process_time() - started
    started = time.process_time()
    graph, example = trace(model, x)
    traced = time.process_time() - started
    dense = copy.deepcopy(model)
    try:
        report = gsprune.prune_step(model, 0.5, example_inputs=x)
    except gsprune.GspruneError as error:
        return Row(name, f"refused: {str(error)[:160]}")
    with affine_norms() if graph.inexact else mock.patch.object(F, "layer_norm", F.layer_norm), torch.no_grad():
        expected = tensors_in(example.call(masked_copy(dense, report.removed)))
        got = tensors_in(example.call(model))
    errors = [float((a - b).abs().max() / (b.abs().max() + 1e-12)) for a, b in zip(got, expected, strict=True)]
    held = [item for item in report.protected if item.reason != "output of the network"]
    return Row(
        name,
        "pruned" if not graph.inexact else "pruned, norms over channels",
        f"{report.params_before / 1e6:.2f} M -> {report.params_after / 1e6:.2f} M",
        f"{max(errors):.0e}",
        "; ".join(f"{item.channels}: {item.reason.splitlines()[0][:90]}" for item in held),
        f"{traced / forward:.1f}",
    )


def rows(only: str) -> Iterator[Row]:
    """All lines; a package that is missing gives one line that says so."""
    for package, networks in (
        ("torchvision", torchvision_networks),
        ("timm", timm_networks),
        ("transformers", transformers_networks),
    ):
        try:
            for name, build, x in networks():
                if fnmatch(name, only):
                    try:
                        yield examine(name, build, x)
                    except Exception as error:
                        yield Row(name, f"failed: {type(error).__name__}: {str(error)[:160]}")
        except ImportError as error:
            yield Row(package, f"not installed ({error})")


HEADER = """# Networks

Written by `python scripts/network_table.py` (random weights, half of the channels of every group asked to go, one
thread). *Difference* is the largest difference between the pruned network's output and that of the dense network with
the removed channels set to zero, relative to the output's scale; where norms read all channels at once, they are
replaced by their affine part for this comparison alone. *Kept by rule* counts the channels that are not pruned, with
the reason, beside the network's outputs. *Trace* is the tracer's time in forwards of the same example (processor time).

| network | result | parameters | difference | kept by rule | trace |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="glob of names such as 'timm *'")
    parser.add_argument("--output", type=Path, default=Path("docs/networks.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with options.output.open("w") as file:
        file.write(HEADER)
        for row in rows(options.only):
            cells = (row.name, row.result, row.parameters, row.error, row.protected, row.ratio)
            file.write("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |\n")
            file.flush()


if __name__ == "__main__":
    main()
