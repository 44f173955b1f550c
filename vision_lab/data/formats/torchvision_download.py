"""torchvision's datasets, downloaded once and read offline afterwards."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from vision_lab.core.errors import DataError
from vision_lab.core.files import expand_home


def labeled_images(
    dataset: Callable[..., Any],
    *,
    split: Literal["train", "val", "test"],
    root: str,
    download: bool,
) -> Any:
    """Create a split of one of torchvision's datasets that have the argument ``train``.

    Args:
        dataset: its class.
        split: the split.
        root: folder with the files.
        download: whether to download missing files.

    Returns:
        The dataset; None for val, which these datasets do not have.

    Raises:
        DataError: if files are missing and cannot be downloaded.
    """
    if split == "val":
        return None
    return load_or_download(partial(dataset, train=split == "train"), root=root, download=download)


def load_or_download(
    dataset: Callable[..., Any],
    *,
    root: str,
    download: bool,
) -> Any:
    """Create one of torchvision's datasets.

    Args:
        dataset: its class with all arguments but ``root`` and ``download``.
        root: folder with the files.
        download: whether to download missing files.

    Raises:
        DataError: if files are missing and cannot be downloaded.
    """
    folder = expand_home(root)
    try:
        return dataset(root=str(folder), download=False)
    except (RuntimeError, FileNotFoundError):
        pass  # missing or incomplete
    name = _class_name(dataset)
    problem = f"{name} is missing or incomplete in {folder.absolute()}"
    if not download:
        raise DataError(f"{problem}: type data.root=<folder with it, or to download it to>")
    try:
        return dataset(root=str(folder), download=True)
    except (OSError, RuntimeError) as error:  # those of urllib are OSErrors
        raise DataError(
            f"{problem}, and cannot be downloaded: {error}\nType data.root=<folder with the files "
            f"of torchvision.datasets.{name}>, or run once with a network connection and the same "
            "data.root."
        ) from error


def _class_name(dataset: Any) -> str:
    while isinstance(dataset, partial):
        dataset = dataset.func
    return str(dataset.__name__)
