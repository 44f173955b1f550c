"""What FCN and DeepLab share in torchvision's form: scores of a backbone's last map, enlarged to the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec


class SegmentationNetwork(nn.Module):
    """(N, C, H, W) -> (N, K, H, W) logits; while training a tuple of them, main first, where there is an auxiliary.

    Its keys are those of torchvision's segmentation networks.
    """

    def __init__(
        self,
        backbone: nn.Module,
        names: tuple[str, ...],
        classifier: nn.Module,
        aux_classifier: nn.Module | None,
    ) -> None:
        super().__init__()
        self.names = names
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        maps = self.backbone(images)
        main = upsample_to(self.classifier(maps[self.names[0]]), images)
        if self.aux_classifier is None or not self.training:
            return main
        return main, upsample_to(self.aux_classifier(maps[self.names[1]]), images)


def segmentation_network(
    backbone: Backbone,
    spec: DataSpec,
    classifier: nn.Module,
    *,
    output_stride: int | None,
    auxiliary: bool,
) -> SegmentationNetwork:
    """A classifier of the last map, and an auxiliary one of the map before it."""
    *_, before, last = backbone.stages
    names = (last.name, before.name) if auxiliary else (last.name,)
    aux_classifier = FCNHead(before.channels, spec.num_classes) if auxiliary else None
    return SegmentationNetwork(
        backbone.features(names, output_stride=output_stride), names, classifier, aux_classifier
    )


def check_decoder_levels(
    key: str, typed: Sequence[int], backbone: Backbone, *, wanted: str, example: Sequence[int]
) -> list[int]:
    """What was typed for the levels from a backbone's coarsest map up to its finest.

    Args:
        key: what it was typed for.
        typed: a number for each level, or more.
        backbone: which decides how many levels there are.
        wanted: what to type, for the error.
        example: enough numbers for any backbone.

    Raises:
        ConfigurationError: where there are too few.
    """
    values, levels = list(typed), len(backbone.stages) - 1
    if len(values) < levels:
        raise ConfigurationError(
            f"{key}={values}: this model has {levels} levels to go up; type {wanted} for each, as in "
            f"{key}={list(example[-levels:])}"
        )
    return values[:levels]


def upsample_to(scores: Tensor, like: Tensor) -> Tensor:
    """(N, K, h, w) at the height and width of another tensor, bilinear; as it is where they agree."""
    size = like.shape[-2:]
    return (
        scores
        if scores.shape[-2:] == size
        else F.interpolate(scores, size, mode="bilinear", align_corners=False)
    )
