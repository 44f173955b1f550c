"""torchvision's segmentation datasets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from torchvision.datasets import OxfordIIITPet, VOCSegmentation

from vision_lab.core.arguments import Count
from vision_lab.core.files import expand_home
from vision_lab.data.formats.image_masks import ImageMaskDataset, MaskEncoding
from vision_lab.data.formats.torchvision_download import load_or_download


def voc_masks(
    root: str,
    *,
    download: bool,
    year: Literal["2007", "2008", "2009", "2010", "2011", "2012"],
    split: Literal["train", "val", "test"],
    num_classes: int,
    max_pixels: Count,
) -> ImageMaskDataset | None:
    """Create a split of Pascal VOC (Everingham 2010), with 255 around objects.

    VOC's own list ``val`` is the test split, since the masks of its test split are not public.

    Args:
        root: folder with VOCdevkit/.
        download: whether to download missing files.
        year: 2007 to 2012; 2012 is the common one.
        split: the split.
        num_classes: 21 with the background.
        max_pixels: maximum number of pixels of a mask.

    Returns:
        The dataset; None for val, which is held out of train.

    Raises:
        DataError: if files are missing and cannot be downloaded.
    """
    if split == "val":
        return None
    image_set = "val" if split == "test" else "train"
    dataset = load_or_download(
        partial(VOCSegmentation, year=year, image_set=image_set), root=root, download=download
    )
    pairs = zip(dataset.images, dataset.masks, strict=True)
    samples = [(Path(image), Path(mask)) for image, mask in pairs]
    return ImageMaskDataset(samples, MaskEncoding(num_classes), max_pixels)


def oxford_pet_masks(
    root: str, *, download: bool, split: Literal["train", "val", "test"], max_pixels: int
) -> ImageMaskDataset | None:
    """Create a split of the Oxford-IIIT Pets (Parkhi 2012), with masks of the animals.

    In the files 1 is the animal, 2 the background and 3 the border, which is ignored.

    Args:
        root: folder with oxford-iiit-pet/.
        download: whether to download missing files.
        split: the split; train is the dataset's own ``trainval``.
        max_pixels: maximum number of pixels of a mask.

    Returns:
        The dataset; None for val, which is held out of train.

    Raises:
        DataError: if files are missing and cannot be downloaded.
    """
    if split == "val":
        return None
    own_split = "test" if split == "test" else "trainval"
    dataset = partial(OxfordIIITPet, split=own_split, target_types="segmentation")
    load_or_download(dataset, root=root, download=download)
    folder = expand_home(root) / "oxford-iiit-pet"
    lines = (folder / "annotations" / f"{own_split}.txt").read_text(encoding="utf-8").splitlines()
    samples = []
    for name in (line.split()[0] for line in lines if line):
        mask = folder / "annotations" / "trimaps" / f"{name}.png"
        samples.append((folder / "images" / f"{name}.jpg", mask))
    encoding = MaskEncoding(2, class_values=(2, 1), ignored_values=(3,))
    return ImageMaskDataset(samples, encoding, max_pixels)
