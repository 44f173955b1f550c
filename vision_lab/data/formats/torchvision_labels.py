"""torchvision's classification datasets of photographs in files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from torchvision.datasets import Flowers102, Food101, OxfordIIITPet

from vision_lab.core.errors import ConfigurationError
from vision_lab.data.formats.image_folder import LabeledImages
from vision_lab.data.formats.torchvision_download import load_or_download

Split = Literal["train", "val", "test"]


def oxford_pets(*, split: Split, root: str, download: bool) -> LabeledImages | None:
    """Create a split of the Oxford-IIIT Pets, cats and dogs of 37 breeds (Parkhi 2012).

    Args:
        split: the split.
        root: folder with the files.
        download: whether to download missing files.

    Returns:
        The dataset; None for val, which is held out of train.

    Raises:
        DataError: if files are missing and cannot be downloaded.
    """
    if split == "val":
        return None
    make = partial(OxfordIIITPet, split="test" if split == "test" else "trainval")
    dataset = load_or_download(make, root=root, download=download)
    return LabeledImages([Path(file) for file in dataset._images], dataset._labels)


def food101(*, split: Split, root: str, download: bool) -> LabeledImages | None:
    """Create a split of Food-101, dishes of 101 kinds (Bossard 2014).

    Args:
        split: the split.
        root: folder with the files.
        download: whether to download missing files.

    Returns:
        The dataset; None for val, which is held out of train.

    Raises:
        DataError: if files are missing and cannot be downloaded.
    """
    if split == "val":
        return None
    dataset = load_or_download(partial(Food101, split=split), root=root, download=download)
    return LabeledImages([Path(file) for file in dataset._image_files], dataset._labels)


def flowers102(*, split: Split, root: str, download: bool) -> LabeledImages:
    """Create a split of the Oxford flowers of 102 kinds (Nilsback 2008).

    Args:
        split: the split.
        root: folder with the files.
        download: whether to download missing files.

    Raises:
        DataError: if files are missing and cannot be downloaded.
        ConfigurationError: if SciPy, with which torchvision reads the labels, is not installed.
    """
    try:
        import scipy.io  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "data=flowers102 requires SciPy: type pip install scipy"
        ) from error
    dataset = load_or_download(partial(Flowers102, split=split), root=root, download=download)
    return LabeledImages([Path(file) for file in dataset._image_files], dataset._labels)
