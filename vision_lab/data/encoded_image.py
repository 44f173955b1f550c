"""An image file in memory. Does not import torch."""

from typing import NamedTuple


class EncodedImage(NamedTuple):
    """An image file in memory."""

    content: bytes
    path: str
    """Its path, for messages and reports; it need not exist."""
