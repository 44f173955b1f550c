"""Differentiable augmentation: what the discriminator sees, real and made, is changed alike.

Zhao, Liu, Lin, Zhu, Han: Differentiable Augmentation for Data-Efficient GAN Training, 2020.
https://arxiv.org/abs/2006.10738

With few pictures a discriminator soon knows them by heart. Changing real pictures alone would teach the generator the
changes; changing both, with slopes that reach the generator, does not. torchvision draws one change for a whole batch;
here each picture has its own, in plain tensor arithmetic, on the pictures' device.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_lab.core.errors import ConfigurationError

MAX_SHIFT = 1 / 8
"""Of a picture's side, at most, to either side."""

CUTOUT_SIZE = 1 / 2
"""Of a picture's side: the square that is cut out."""


def color(pictures: Tensor) -> Tensor:
    """Brightness by up to 0.5, saturation by a factor up to 2, contrast by one of 0.5 to 1.5."""
    brightness, saturation, contrast = torch.rand(3, len(pictures), 1, 1, 1, device=pictures.device)
    pictures = pictures + brightness - 0.5
    grey = pictures.mean(dim=1, keepdim=True)
    pictures = (pictures - grey) * 2 * saturation + grey
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
    return (pictures - mean) * (0.5 + contrast) + mean


def translation(pictures: Tensor) -> Tensor:
    """Shifted by up to an eighth of the side; what comes in is 0, the middle of [-1, 1]."""
    count, _, height, width = pictures.shape
    down, right = round(height * MAX_SHIFT), round(width * MAX_SHIFT)
    padded = F.pad(pictures, (right, right, down, down))
    drawn = torch.rand(2, count, 1, device=pictures.device)
    rows = torch.arange(height, device=pictures.device) + (drawn[0] * (2 * down + 1)).long()
    columns = torch.arange(width, device=pictures.device) + (drawn[1] * (2 * right + 1)).long()
    which = torch.arange(count, device=pictures.device)
    return padded.permute(0, 2, 3, 1)[
        which[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)


def cutout(pictures: Tensor) -> Tensor:
    """A square of half the side is made 0, its middle anywhere in the picture (DeVries 2017)."""
    count, _, height, width = pictures.shape
    middle = torch.rand(2, count, 1, device=pictures.device)
    rows = (
        torch.arange(height, device=pictures.device) + 0.5 - middle[0] * height
    ).abs() > height * CUTOUT_SIZE / 2
    columns = (
        torch.arange(width, device=pictures.device) + 0.5 - middle[1] * width
    ).abs() > width * CUTOUT_SIZE / 2
    return pictures * (rows[:, None, :, None] | columns[:, None, None, :])


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def make_augmentations(names: Sequence[str]) -> list[Callable[[Tensor], Tensor]]:
    """The changes of ``task.diffaugment``.

    Raises:
        ConfigurationError: where one of them is none.
    """
    if isinstance(names, str) or [name for name in names if name not in AUGMENTATIONS]:
        shown = names if isinstance(names, str) else f"[{','.join(map(str, names))}]"
        raise ConfigurationError(
            f"task.diffaugment={shown}: type a list of {', '.join(AUGMENTATIONS)}, or []"
        )
    return [AUGMENTATIONS[name] for name in names]
