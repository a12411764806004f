"""The public networks that network_table.py prunes: names, makers, examples.

Torchvision: every classifier and segmentation network of the package. Timm: a small one of every family. Transformers:
every image backbone with a configuration of its own, with two layers where the configuration says how many.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from torchvision_models import declare_missing_operators

__all__ = ["Network", "networks"]

TORCHVISION = """
alexnet vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn resnet18 resnet34 resnet50 resnet101 resnet152
resnext50_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2 wide_resnet101_2 densenet121 densenet161 densenet169
densenet201 googlenet inception_v3 squeezenet1_0 squeezenet1_1 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large
mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l
regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf
regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf shufflenet_v2_x0_5
shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 convnext_tiny convnext_small convnext_base convnext_large
vit_b_16 vit_b_32 vit_l_16 vit_l_32 swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b maxvit_t
segmentation/fcn_resnet50 segmentation/fcn_resnet101 segmentation/deeplabv3_resnet50 segmentation/deeplabv3_resnet101
segmentation/deeplabv3_mobilenet_v3_large segmentation/lraspp_mobilenet_v3_large
video/r3d_18 video/mc3_18 video/r2plus1d_18 video/s3d video/mvit_v1_b video/swin3d_t
"""
TIMM = """
beit_base_patch16_224 botnet26t_256 halonet26t lambda_resnet26t sebotnet33ts_256 bat_resnext26ts gcresnext26ts gernet_s
mobileone_s0 regnetz_b16 repvgg_a0 resnet50_clip cait_xxs24_224 coat_lite_tiny coat_tiny convit_tiny convmixer_768_32
convnext_atto convnext_zepto_rms convnextv2_atto cpubone_nano crossvit_9_240 csatv2 cs3darknet_focus_s cs3darknet_s
cspresnet50 cspresnext50 darknet17 cspnext_tiny davit_tiny deit_tiny_patch16_224 deit_tiny_distilled_patch16_224
deit3_small_patch16_224 densenet121 densenetblur121d dla34 dla46x_c dpn48b dpn68 edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientnet_b0 efficientnet_b0_gn efficientnet_cc_b0_4e efficientnet_es efficientnet_lite0
efficientnetv2_rw_t fbnetc_100 mixnet_s tinynet_e mnasnet_small spnasnet_100 efficientvim_m1 efficientvit_b0
efficientvit_m0 efficientvit_l1 eva02_tiny_patch14_224 vit_base_patch16_rope_reg1_gap_256 fasternet_t0 fastvit_t8
fastvit_sa12 focalnet_tiny_srf gcvit_xxtiny ghostnet_100 ghostnetv2_100 ghostnetv3_050 hardcorenas_a hgnet_tiny
hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2
inception_v3 inception_v4 lcnetv2_small levit_128s levit_conv_128s lowformer_b0 mambaout_femto coatnet_pico_rw_224
coatnet_nano_cc_224 coatnext_nano_rw_224 maxvit_pico_rw_256 maxxvit_rmlp_nano_rw_256 maxxvitv2_nano_rw_256
poolformer_s12 poolformerv2_s12 convformer_s18 caformer_s18 mixer_s32_224 gmixer_12_224 gmlp_ti16_224 resmlp_12_224
lcnet_050 mobilenetv3_small_050 fbnetv3_b mobilenetv4_conv_small mobilenetv4_hybrid_medium mobilevit_xxs
mobilevitv2_050 mvitv2_tiny nest_tiny nextvit_small dm_nfnet_f0 nfnet_l0 eca_nfnet_l0 nf_regnet_b0 nf_resnet26
nf_ecaresnet26 pit_ti_224 pvt_v2_b0 pvt_v2_b2_li rdnet_tiny regnetx_002 regnety_002 regnetv_040 regnetz_005
repghostnet_050 repvit_m1 res2net50_14w_8s res2next50 resnest14d resnet10t resnet26d resnet50_gn resnetaa50
resnetblur18 resnetrs50 ecaresnet26t seresnet50 resnetv2_18 resnetv2_50 resnetv2_50x1_bit resnetv2_50d_evos
resnetv2_50d_frn rexnet_100 rexnetr_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s1
swiftformer_xs swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
tnt_s_patch16_224 tresnet_m twins_pcpvt_small twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224
flexivit_small vit_small_patch14_dinov2 vit_tiny_r_s16_p8_224 vit_relpos_small_patch16_224
vit_srelpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224 volo_d1_224 ese_vovnet19b_slim vovnet39a
legacy_xception xception41 xcit_nano_12_p16_224
"""
TRANSFORMERS = """
BeitForImageClassification BeitForSemanticSegmentation BitForImageClassification CLIPForImageClassification
ConvNextForImageClassification ConvNextV2ForImageClassification CvtForImageClassification
Data2VecVisionForImageClassification DeiTForImageClassification DeiTForImageClassificationWithTeacher
DepthAnythingForDepthEstimation Dinov2ForImageClassification Dinov2WithRegistersForImageClassification
DINOv3ConvNextModel DINOv3ViTModel DonutSwinForImageClassification DPTForDepthEstimation DPTForSemanticSegmentation
EfficientNetForImageClassification FocalNetForImageClassification GLPNForDepthEstimation HGNetV2ForImageClassification
HieraForImageClassification IJepaForImageClassification LevitForImageClassification
LevitForImageClassificationWithTeacher MobileNetV1ForImageClassification MobileNetV2ForImageClassification
MobileNetV2ForSemanticSegmentation MobileViTForImageClassification MobileViTForSemanticSegmentation
MobileViTV2ForImageClassification MobileViTV2ForSemanticSegmentation PoolFormerForImageClassification
PvtForImageClassification PvtV2ForImageClassification RegNetForImageClassification ResNetForImageClassification
RTDetrResNetBackbone SegformerForImageClassification SegformerForSemanticSegmentation SiglipForImageClassification
SwiftFormerForImageClassification SwinForImageClassification Swinv2ForImageClassification Swin2SRModel
TextNetForImageClassification UperNetForSemanticSegmentation ViTForImageClassification ViTMAEModel
ViTMSNForImageClassification VitDetModel VitPoseBackbone YolosModel Aimv2VisionModel MLCDVisionModel
"""
# What a kind asks for beside its default configuration.
_OPTIONS: dict[str, dict[str, Any]] = {"BeitForSemanticSegmentation": {"out_indices": [3, 5, 7, 11]}}
_SIDES = {"inception": 96, "vit": 224, "maxvit": 224}  # torchvision's others take pictures of 64 x 64


class Network(NamedTuple):
    """One network: its name, how to make it, and its example."""

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[], Tensor]


def networks() -> Iterator[Network]:
    """All networks of the packages that are installed."""
    for package in (_torchvision, _timm, _transformers):
        try:
            yield from package()
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)


def _torchvision() -> Iterator[Network]:
    declare_missing_operators()
    from torchvision import models

    for name in TORCHVISION.split():
        kind, _, plain = name.rpartition("/")
        options: dict[str, Any] = {"weights": None, "num_classes": 10}
        if kind == "segmentation":
            options["weights_backbone"] = None
        side = _SIDES.get(plain.split("_")[0], 64)
        shape = {"video": (1, 3, 16, 64, 64)}.get(kind, (2, 3, side, side))
        if plain.startswith(("mvit", "s3d")):
            shape = (1, 3, 16, 224, 224)
        yield Network(
            f"torchvision {plain}", lambda p=plain, o=options: models.get_model(p, **o), lambda s=shape: torch.rand(s)
        )


def _timm() -> Iterator[Network]:
    declare_missing_operators()
    import timm

    known = set(timm.list_models())
    for name in TIMM.split():
        if name not in known:
            print(f"timm has no {name}", file=sys.stderr)
            continue
        yield Network(f"timm {name}", lambda n=name: timm.create_model(n, num_classes=10), lambda n=name: _sized(n))


def _sized(name: str) -> Tensor:
    """An example of the size that timm's configuration asks for."""
    import timm

    configuration = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    shape = configuration.input_size if configuration is not None else (3, 224, 224)
    return torch.rand(1, *shape)


def _transformers() -> Iterator[Network]:
    declare_missing_operators()
    import transformers

    for name in TRANSFORMERS.split():
        kind = getattr(transformers, name, None)
        if kind is None:
            print(f"transformers has no {name}", file=sys.stderr)
            continue
        yield Network(f"transformers {name}", lambda k=kind: _configured(k), lambda k=kind: _example_of(k))


def _configuration(kind: Any) -> Any:
    """The kind's default configuration, with two layers where it says how many."""
    options = {"num_hidden_layers": 2, "num_labels": 10}
    if kind.__name__.endswith(("DepthEstimation", "SemanticSegmentation")):
        del options["num_hidden_layers"]  # heads that read four of twelve layers
    configuration = kind.config_class()
    accepted = inspect.signature(type(configuration).__init__).parameters
    chosen = {k: v for k, v in options.items() if k in accepted or k == "num_labels"}
    configuration = kind.config_class(**chosen, **_OPTIONS.get(kind.__name__, {}))
    if "vision_config" in vars(configuration):
        configuration.vision_config.num_hidden_layers = 2
    return configuration


def _configured(kind: Any) -> nn.Module:
    model: nn.Module = kind(_configuration(kind))
    return model


def _example_of(kind: Any) -> Tensor:
    """A picture of the size and with the channels that the configuration asks for."""
    configuration = _configuration(kind)
    configuration = getattr(configuration, "vision_config", configuration)
    size = getattr(configuration, "image_size", 224) or 224
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(1, getattr(configuration, "num_channels", 3), height, width)
