"""Backbones of the heads' tests."""

from collections.abc import Callable

import pytest
import torch
import torchvision

from vision_lab.core.spec import DataSpec
from vision_lab.models.backbone import ClassifierBackbone


@pytest.fixture
def mask_spec() -> DataSpec:
    return DataSpec(
        target_type="masks",
        class_names=tuple("abcde"),
        num_classes=5,
        image_size=(65, 90),
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


@pytest.fixture
def make_backbone() -> Callable[..., ClassifierBackbone]:
    """Create torchvision's classifiers with random weights."""

    def make(name: str) -> ClassifierBackbone:
        torch.manual_seed(0)
        return ClassifierBackbone(
            getattr(torchvision.models, name)(weights=None), channels=3, loaded=None
        )

    return make
