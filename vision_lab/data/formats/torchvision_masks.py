"""Data sets with masks that torchvision knows and fetches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from torchvision.datasets import OxfordIIITPet, VOCSegmentation

from vision_lab.core.arguments import Count
from vision_lab.data.formats.image_masks import ImageMaskDataset, MaskEncoding
from vision_lab.data.formats.torchvision_download import load_or_download


def voc_masks(
    root: str,
    *,
    download: bool,
    year: Literal["2007", "2008", "2009", "2010", "2011", "2012"],
    split: Literal["train", "val", "trainval"],
    classes: int,
    max_pixels: Count,
) -> ImageMaskDataset:
    """Pascal VOC's masks (Everingham 2010): places in a palette, 255 around objects.

    Args:
        root: the folder that holds VOCdevkit/, or is to hold it.
        download: fetch what is not there.
        year: 2007 to 2012; the masks of 2012 are the usual ones.
        split: one of VOC's own lists.
        classes: 21 with the background.
        max_pixels: a mask of more is not decoded.

    Raises:
        DataError: where the files are not there and cannot be fetched.
    """
    found = load_or_download(
        partial(VOCSegmentation, year=year, image_set=split), root=root, download=download
    )
    samples = [
        (Path(picture), Path(mask)) for picture, mask in zip(found.images, found.masks, strict=True)
    ]
    return ImageMaskDataset(samples, MaskEncoding(classes), max_pixels)


def oxford_pet_masks(
    root: str, *, download: bool, split: Literal["trainval", "test"], max_pixels: int
) -> ImageMaskDataset:
    """Cats and dogs (Parkhi 2012): 1 is the animal, 2 what is around it, 3 its border, which does not count.

    Args:
        root: the folder that holds oxford-iiit-pet/, or is to hold it.
        download: fetch what is not there.
        split: one of the data set's own lists.
        max_pixels: a mask of more is not decoded.

    Raises:
        DataError: where the files are not there and cannot be fetched.
    """
    load_or_download(
        partial(OxfordIIITPet, split=split, target_types="segmentation"),
        root=root,
        download=download,
    )
    folder = Path(root).expanduser() / "oxford-iiit-pet"
    lines = (folder / "annotations" / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split()[0] for line in lines if line]
    samples = [
        (folder / "images" / f"{n}.jpg", folder / "annotations" / "trimaps" / f"{n}.png")
        for n in names
    ]
    return ImageMaskDataset(
        samples, MaskEncoding(2, class_values=(2, 1), ignored_values=(3,)), max_pixels
    )
