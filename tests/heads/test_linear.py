"""The linear head keeps the classifier of the paper."""

from functools import partial

from vision_lab.core.spec import DataSpec
from vision_lab.heads.linear import linear
from vision_lab.models.architectures.cifar_resnet import CifarResNet
from vision_lab.models.backbone import build_backbone


def test_the_linear_head_is_the_classifier(spec: DataSpec):
    made = build_backbone(
        spec, network=partial(CifarResNet, depth=20), stem="imagenet", weights=None, freeze=None
    )
    assert linear(made, spec) is made.network
