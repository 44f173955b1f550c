"""torchvision's classification datasets of photographs in files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from torchvision.datasets import Flowers102, Food101, OxfordIIITPet

from vision_lab.core.errors import ConfigurationError
from vision_lab.data.formats.image_folder import LabeledImages
from vision_lab.data.formats.torchvision_download import load_or_download

Name = Literal["oxford_pets", "flowers102", "food101"]


def photographs(
    name: Name, *, split: Literal["train", "val", "test"], root: str, download: bool
) -> LabeledImages | None:
    """Create a split of a dataset.

    Args:
        name: the Oxford-IIIT Pets (Parkhi 2012), the Oxford flowers (Nilsback 2008) or Food-101
            (Bossard 2014).
        split: the split.
        root: folder with the files.
        download: whether to download missing files.

    Returns:
        The dataset; None for val of pets and food, which is held out of train.

    Raises:
        DataError: if files are missing and cannot be downloaded.
        ConfigurationError: if SciPy, with which torchvision reads flowers, is not installed.
    """
    if name == "flowers102":
        make = partial(Flowers102, split=split)
    elif split == "val":
        return None
    elif name == "food101":
        make = partial(Food101, split=split)
    else:
        make = partial(OxfordIIITPet, split="test" if split == "test" else "trainval")
    try:
        dataset = load_or_download(make, root=root, download=download)
    except ImportError as error:
        raise ConfigurationError(
            "data=flowers102 requires SciPy: type pip install scipy"
        ) from error
    files = dataset._images if name == "oxford_pets" else dataset._image_files
    return LabeledImages([Path(file) for file in files], dataset._labels)
