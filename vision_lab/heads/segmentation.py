"""The segmentation network of FCN and DeepLab, as in torchvision, and helpers of decoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from vision_lab.core.arguments import ArgumentError, format_value
from vision_lab.core.protocols import Backbone
from vision_lab.core.spec import DataSpec


class SegmentationNetwork(nn.Module):
    """Maps (N, C, H, W) to (N, K, H, W) logits; its keys are those of torchvision's networks.

    While training with an auxiliary classifier it returns a tuple, main logits first.

    Args:
        backbone: maps images to feature maps by name.
        names: names of the feature maps for the classifier and the auxiliary classifier.
        classifier: maps the last feature map to logits.
        aux_classifier: maps the feature map before the last to logits.
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
        features = self.backbone(images)
        main = upsample_to(self.classifier(features[self.names[0]]), images)
        if self.aux_classifier is None or not self.training:
            return main
        return main, upsample_to(self.aux_classifier(features[self.names[1]]), images)


def segmentation_network(
    backbone: Backbone,
    spec: DataSpec,
    classifier: nn.Module,
    *,
    output_stride: int | None,
    aux_loss: bool,
) -> SegmentationNetwork:
    """Put a classifier on the last feature map of a backbone.

    Args:
        backbone: a backbone with at least two stages.
        spec: spec of the data.
        classifier: maps the last feature map to logits.
        output_stride: maximum stride of the feature maps; None for the backbone's own.
        aux_loss: whether to put an auxiliary classifier on the feature map before the last.
    """
    *_, previous, last = backbone.stages
    names: tuple[str, ...] = (last.name,)
    aux_classifier = None
    if aux_loss:
        names = (last.name, previous.name)
        aux_classifier = FCNHead(previous.channels, spec.num_classes)
    features = backbone.features(names, output_stride=output_stride)
    return SegmentationNetwork(features, names, classifier, aux_classifier)


def check_decoder_levels(
    name: str, values: Sequence[int], backbone: Backbone, *, needed: str, example: Sequence[int]
) -> list[int]:
    """Check that there is a value for each decoder level, and drop the remaining ones.

    Args:
        name: name of the argument, for the error.
        values: a value for each level, from the coarsest, or more.
        backbone: the backbone, which determines the number of levels.
        needed: what to type for each level, for the error.
        example: enough example values for any backbone.

    Raises:
        ArgumentError: if there are too few values.
    """
    num_levels = len(backbone.stages) - 1
    if len(values) < num_levels:
        shown = format_value(list(example[-num_levels:]))
        message = f"{needed} for each of the {num_levels} levels of this model, as in {shown}"
        raise ArgumentError(name, list(values), message)
    return list(values)[:num_levels]


def upsample_to(logits: Tensor, reference: Tensor) -> Tensor:
    """Resize to the height and width of another tensor, with bilinear interpolation.

    Args:
        logits: (N, K, h, w).
        reference: (..., H, W).

    Returns:
        (N, K, H, W).
    """
    size = reference.shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
