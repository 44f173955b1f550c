"""Features of images, in which generated images are compared with real ones.

Heusel et al. 2017 (https://arxiv.org/abs/1706.08500) use those of Inception. The penultimate layer
of any classifier serves the purpose, as long as only values from the same network are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import expand_home
from vision_lab.core.spec import DataSpec
from vision_lab.core.text import first_line
from vision_lab.models.architectures.cifar_resnet import CifarResNet
from vision_lab.models.stem import set_in_channels
from vision_lab.models.weights import LOAD_ERRORS

FASHION_WEIGHTS = Path(__file__).with_name("fashion_features.pth")
"""ResNet-8 with an accuracy of 0.905 on ``fashion_mini``'s test images, trained with

python -m vision_lab model=resnet20 model.network.depth=8 optimizer.lr=4.0e-3 trainer.max_epochs=20
"""

FASHION_SIZE = 32
FASHION_MEAN = 0.287
FASHION_STD = 0.354


class FrozenFeatures:
    """A frozen network and its name.

    It is not a module, so that it is not part of the task that uses it.

    Args:
        network: maps images (N, C, H, W) in [0, 1] to features (N, D).
        name: name to report with metrics.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name = name

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Compute features on the device of the images.

        Args:
            images: (N, C, H, W), uint8 or float in [0, 1], of any size.

        Returns:
            (N, D) float32.
        """
        if images.dtype == torch.uint8:
            images = images.float() / 255
        with torch.autocast(images.device.type, enabled=False):
            return self.network.to(images.device)(images.float()).float()


class PenultimateFeatures(nn.Module):
    """Maps images (N, C, H, W) in [0, 1] of any size to the inputs (N, D) of the last layer.

    Args:
        classifier: the classifier, which expects normalized images.
        spec: spec of its data.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classifier: nn.Module,
        spec: DataSpec,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.image_size = spec.image_size
        self.channels = spec.channels
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1))
        layers = []
        for layer in classifier.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layers.append(layer)
        layers[-1].register_forward_pre_hook(self._record)
        self.recorded = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        images = _convert_channels(images, self.channels)
        if images.shape[-2:] != self.image_size:
            images = F.resize(images, list(self.image_size), antialias=True)
        self.classifier((images - self.mean) / self.std)
        features, self.recorded = self.recorded, torch.empty(0)
        if features.ndim == 4:
            return features.mean(dim=(2, 3))
        return features

    def _record(
        self,
        _: nn.Module,
        inputs: tuple[Any, ...],
    ) -> None:
        self.recorded = inputs[0]


class PerChannel(nn.Module):
    """Maps images (N, C, H, W) to features (N, C * D), of each channel as a gray image.

    Args:
        network: maps gray images (N, 1, H, W) to features (N, D).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        gray_images = images.flatten(0, 1)[:, None]
        return self.network(gray_images).view(len(images), -1)


class InceptionFeatures(nn.Module):
    """Maps images (N, C, H, W) in [0, 1] to the features (N, 2048) of published FIDs.

    Args:
        extractor: torch-fidelity's network.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        pixels = (_convert_channels(images, 3) * 255).round().to(torch.uint8)
        (features,) = self.extractor(pixels)
        return features


def fashion_features() -> FrozenFeatures:
    """Load the network in the package: images of 32 pixels, 64 features per channel.

    It was trained on garments, but its edges and shapes also distinguish generated images of other
    things from real ones.
    """
    spec = DataSpec(
        target_type="labels",
        class_names=("",),
        num_classes=1,
        image_size=(FASHION_SIZE, FASHION_SIZE),
        channels=1,
        mean=(FASHION_MEAN,),
        std=(FASHION_STD,),
    )
    network = CifarResNet(depth=8)
    set_in_channels(network, spec.channels)
    network.load_state_dict(torch.load(FASHION_WEIGHTS, map_location="cpu", weights_only=True))
    return FrozenFeatures(PerChannel(PenultimateFeatures(network, spec)), "fashion_mini")


def classifier_features(
    classifier: nn.Module,
    spec: DataSpec,
    name: str,
) -> FrozenFeatures:
    """Build a feature extractor from a trained classifier.

    Args:
        classifier: the classifier.
        spec: spec of its data.
        name: name to report with metrics.
    """
    return FrozenFeatures(PenultimateFeatures(classifier, spec), name)


def inception(weights: str | None = None) -> FrozenFeatures:
    """Load the network of published FIDs.

    Args:
        weights: torch-fidelity's weights file; None to download it.

    Raises:
        ConfigurationError: if torch-fidelity is missing, or the weights cannot be downloaded.
        ArgumentError: if there is no such file, or it does not contain these weights.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (
            URL_INCEPTION_V3,
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise ConfigurationError(
            "Inception's features require torch-fidelity: type pip install 'vision_lab[fid]', or "
            "choose other features"
        ) from error
    file = expand_home(weights) if weights else None
    if file and not file.is_file():
        raise ArgumentError("weights", weights, "the path of a file that exists")
    try:
        if file:  # torch-fidelity would run code in it
            torch.load(file, map_location="cpu", weights_only=True)
        path = str(file) if file else None
        extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path)
    except OSError as error:  # those of urllib are OSErrors
        name = URL_INCEPTION_V3.rsplit("/", 1)[-1]
        needed = (
            f"the path of {name}, downloaded elsewhere, or choose other features: "
            f"{URL_INCEPTION_V3} cannot be downloaded ({error})"
        )
        raise ArgumentError("weights", weights, needed) from error
    except (*LOAD_ERRORS, AttributeError, TypeError) as error:
        needed = f"the path of torch-fidelity's weights, which these are not ({first_line(error)})"
        raise ArgumentError("weights", weights, needed) from error
    return FrozenFeatures(InceptionFeatures(extractor), "inception")


def _convert_channels(images: Tensor, channels: int) -> Tensor:
    """Convert colors to gray and gray to colors; other channels are averaged first."""
    if images.shape[1] == channels:
        return images
    is_rgb = images.shape[1] == 3
    gray = F.rgb_to_grayscale(images) if is_rgb else images.mean(dim=1, keepdim=True)
    return gray.expand(-1, channels, -1, -1)
