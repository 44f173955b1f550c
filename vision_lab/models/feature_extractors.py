"""Pictures as points: the features in which made pictures are held against real ones.

Heusel et al. 2017 (https://arxiv.org/abs/1706.08500) take Inception's. Any classifier's layer before the classes will
do, as long as numbers are held against others of the same network only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.core.text import first_line
from vision_lab.models.architectures.cifar_resnet import CifarResNet
from vision_lab.models.stem import set_in_channels
from vision_lab.models.weights import LOAD_ERRORS

FASHION_WEIGHTS = Path(__file__).with_name("garment_features.pth")
"""A residual network of 8 layers, 0.905 right on ``fashion_mini``'s test pictures, made by

python -m vision_lab model=resnet20 model.network.depth=8 optimizer.lr=4.0e-3 trainer.max_epochs=20
"""


class FeatureExtractor:
    """A network that is looked through, and what it is called.

    It is no module, so that it is no part of what a task learns or saves.

    Args:
        network: (N, C, H, W) floats in [0, 1] -> (N, D).
        name: written beside the numbers.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name = name

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, C, H, W) uint8 pictures, or floats in [0, 1], of any size -> (N, D) float32, on their device."""
        if pictures.dtype == torch.uint8:
            pictures = pictures.float() / 255
        with torch.autocast(pictures.device.type, enabled=False):
            return self.network.to(pictures.device)(pictures.float()).float()


class PenultimateFeatures(nn.Module):
    """What a classifier's last layer is given: (N, C, H, W) floats in [0, 1] of any size -> (N, D).

    Args:
        classifier: takes normalised pictures.
        spec: of the pictures that it takes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: nn.Module, spec: DataSpec) -> None:
        super().__init__()
        self.classifier = classifier
        self.size = spec.image_size
        self.channels = spec.channels
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1))
        last = [
            module for module in classifier.modules() if isinstance(module, nn.Linear | nn.Conv2d)
        ][-1]
        last.register_forward_pre_hook(self._see)
        self.seen = torch.empty(0)

    def forward(self, pictures: Tensor) -> Tensor:
        pictures = _with_channels(pictures, self.channels)
        if pictures.shape[-2:] != self.size:
            pictures = F.resize(pictures, list(self.size), antialias=True)
        self.classifier((pictures - self.mean) / self.std)
        seen, self.seen = self.seen, torch.empty(0)
        return seen.mean(dim=(2, 3)) if seen.ndim == 4 else seen

    def _see(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.seen = inputs[0]


class PerChannel(nn.Module):
    """Each channel as a grey picture, so that colours count: (N, C, H, W) floats in [0, 1] -> (N, C * D)."""

    def __init__(self, look: nn.Module) -> None:
        super().__init__()
        self.look = look

    def forward(self, pictures: Tensor) -> Tensor:
        channels = pictures.flatten(0, 1)[:, None]
        return self.look(channels).view(len(pictures), -1)


class InceptionFeatures(nn.Module):
    """The network of the published FIDs, as torch-fidelity has it: (N, C, H, W) floats in [0, 1] -> (N, 2048)."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, pictures: Tensor) -> Tensor:
        (found,) = self.extractor((_with_channels(pictures, 3) * 255).round().to(torch.uint8))
        return found


def fashion_features() -> FeatureExtractor:
    """The network that comes with the package: pictures of 32 pixels, 64 numbers for each channel.

    It has learnt garments, but what it sees are edges and shapes, and tells made pictures of other things from real
    ones too.
    """
    spec = _spec((32, 32), channels=1, mean=(0.287,), std=(0.354,))
    network = CifarResNet(depth=8)
    set_in_channels(network, spec.channels)
    network.load_state_dict(torch.load(FASHION_WEIGHTS, map_location="cpu", weights_only=True))
    return FeatureExtractor(PerChannel(PenultimateFeatures(network, spec)), "fashion_mini")


def classifier_features(classifier: nn.Module, spec: DataSpec, name: str) -> FeatureExtractor:
    """Those of a classifier that was trained here."""
    return FeatureExtractor(PenultimateFeatures(classifier, spec), name)


def inception(path: str | None) -> FeatureExtractor:
    """Those of the published FIDs.

    Args:
        path: torch-fidelity's file of weights; None: fetched, once.

    Raises:
        ConfigurationError: where torch-fidelity or the weights are not to be had.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (
            URL_INCEPTION_V3,
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise ConfigurationError(
            "task.feature_extractor=inception needs torch-fidelity: type pip install 'vision_lab[fid]', or take other features "
            "(task.feature_extractor=fashion_mini, or run:<the folder of a run of task=classify>)"
        ) from error
    file = Path(path).expanduser() if path else None
    typed = f"task.feature_extractor=inception:{path}"
    if file and not file.is_file():
        raise ConfigurationError(f"{typed}: there is no such file")
    try:
        if file:  # torch-fidelity would run whatever code is in it
            torch.load(file, map_location="cpu", weights_only=True)
        extractor = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], str(file) if file else None
        )
    except OSError as error:  # urllib's errors are OSErrors
        name = URL_INCEPTION_V3.rsplit("/", 1)[-1]
        raise ConfigurationError(
            f"task.feature_extractor=inception: {URL_INCEPTION_V3} could not be fetched: {error}\n"
            f"Fetch it where there is a network, then type task.feature_extractor=inception:<folder>/{name}; or take other "
            "features (task.feature_extractor=fashion_mini, or run:<the folder of a run of task=classify>)"
        ) from error
    except (*LOAD_ERRORS, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{typed}: these are not torch-fidelity's weights ({first_line(error)})"
        ) from error
    return FeatureExtractor(InceptionFeatures(extractor), "inception")


def _with_channels(pictures: Tensor, channels: int) -> Tensor:
    """Colours as grey, grey as colours; of other numbers of channels their mean."""
    if pictures.shape[1] == channels:
        return pictures
    grey = (
        F.rgb_to_grayscale(pictures)
        if pictures.shape[1] == 3
        else pictures.mean(dim=1, keepdim=True)
    )
    return grey.expand(-1, channels, -1, -1)


def _spec(
    size: tuple[int, int], *, channels: int, mean: Sequence[float], std: Sequence[float]
) -> DataSpec:
    return DataSpec(
        target_type="labels",
        class_names=("",),
        num_classes=1,
        image_size=size,
        channels=channels,
        mean=tuple(mean),
        std=tuple(std),
    )
