"""torchvision's data sets: fetched once, read without any network afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision_lab.core.errors import DataError


def load_or_download(dataset: Callable[..., Any], *, root: str, download: bool) -> Any:
    """One of torchvision's data sets.

    Args:
        dataset: its class with all arguments but ``root`` and ``download``.
        root: the folder that holds the files, or is to hold them.
        download: fetch what is not there.

    Raises:
        DataError: where the files are not there and cannot be fetched.
    """
    folder = Path(root).expanduser()
    try:
        return dataset(root=str(folder), download=False)
    except (RuntimeError, FileNotFoundError):
        pass  # not there, or not whole: torchvision says so in the same words
    name = getattr(dataset, "func", dataset).__name__
    if not download:
        raise DataError(
            f"{name} is not whole in {folder.absolute()}: type data.root=<folder that holds it, or is to hold it>"
        )
    try:
        return dataset(root=str(folder), download=True)
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors
        raise DataError(
            f"{name} is not whole in {folder.absolute()}, and could not be fetched: {error}\n"
            f"Type data.root=<folder that holds it, as torchvision.datasets.{name} lays it out>, "
            "or run once where there is a network, with the same data.root."
        ) from error
