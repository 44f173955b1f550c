"""Region proposals of images by selective search, computed once for each image.

Uijlings, van de Sande, Gevers, Smeulders: Selective Search for Object Recognition, 2013.
https://doi.org/10.1007/s11263-013-0620-5
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vision_lab.core.extras import import_opencv
from vision_lab.core.files import write_file
from vision_lab.core.machine import available_cores, cache_folder

Strategy = Literal["fast", "quality"]
"""The paper's two combinations of color spaces, similarities and initial segmentations."""

MAX_IN_MEMORY = 50_000
"""Maximum number of images whose proposals are kept in memory, the last used ones."""

READ_ERRORS = (OSError, ValueError, EOFError)
"""Exceptions of NumPy for a file that it did not write."""


class SelectiveSearch(nn.Module):
    """Finds regions that may be objects, by merging similar adjacent regions of a segmentation.

    The result is a function of the image alone. Because it takes longer than a network, it is kept
    in memory and in the user's folder of caches, under a hash of the pixels.

    Args:
        mean: mean of each channel with which images are normalized, or one for all.
        std: standard deviation, likewise.
        strategy: ``fast`` or ``quality``.
        max_proposals: maximum number of proposals of an image, of which a fixed random choice is
            taken.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        strategy: Strategy = "fast",
        max_proposals: int = 2000,
    ) -> None:
        super().__init__()
        self.strategy = strategy
        self.max_proposals = max_proposals
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self._known: OrderedDict[str, NDArray[np.int16]] = OrderedDict()
        import_opencv("selective search")  # fails before training

    def forward(self, images: Tensor) -> list[Tensor]:
        """Find the proposals of each image.

        Args:
            images: (N, C, H, W) normalized.

        Returns:
            N tensors (n, 4) float32, (x1, y1, x2, y2) in pixels.
        """
        pixels = ((images * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)
        arrays = list(pixels.permute(0, 2, 3, 1).cpu().numpy())
        with ThreadPoolExecutor(available_cores()) as pool:  # OpenCV releases Python's lock
            found = list(pool.map(self._find, arrays))
        return [torch.from_numpy(boxes).to(images.device, torch.float32) for boxes in found]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": OrderedDict()}

    def _find(self, pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
        digest = blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16)
        digest.update(f"{pixels.shape} {self.strategy} {self.max_proposals}".encode())
        key = digest.hexdigest()
        known = self._known.get(key)
        if known is None:
            known = _read(key)
        if known is None:
            known = propose(pixels, strategy=self.strategy, max_proposals=self.max_proposals)
            _write(key, known)
        self._known[key] = known
        with suppress(KeyError):  # another thread may have removed it
            self._known.move_to_end(key)
            if len(self._known) > MAX_IN_MEMORY:
                self._known.popitem(last=False)
        return known


def propose(
    pixels: NDArray[np.uint8], *, strategy: Strategy, max_proposals: int
) -> NDArray[np.int16]:
    """Find the proposals of an image.

    Args:
        pixels: (H, W, C) uint8.
        strategy: ``fast`` or ``quality``.
        max_proposals: maximum number of proposals.

    Returns:
        (n, 4), (x1, y1, x2, y2) in pixels, at least two: the whole image and its center are among
        them, so that an image without regions has proposals too.
    """
    cv2 = import_opencv("selective search")
    height, width = pixels.shape[:2]
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(_to_bgr(pixels))
    if strategy == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    # OpenCV orders proposals at random, by a generator that cannot be seeded.
    found = np.unique(np.asarray(search.process()).reshape(-1, 4), axis=0)
    if len(found) > max_proposals - 2:
        order = np.random.default_rng(0).permutation(len(found))
        found = found[np.sort(order[: max_proposals - 2])]
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    added = [
        [0, 0, width, height],
        [width // 4, height // 4, max(width * 3 // 4, 1), max(height * 3 // 4, 1)],
    ]
    return np.concatenate([np.array(added), corners]).astype(np.int16)


def _to_bgr(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image with the three channels that OpenCV expects."""
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels[:, :, ::-1])
    gray = pixels.mean(axis=2, keepdims=True).round().astype(np.uint8)
    return np.ascontiguousarray(gray.repeat(3, axis=2))


def _file_name(key: str) -> str:
    return f"{key[:2]}/{key}.npy"


def _read(key: str) -> NDArray[np.int16] | None:
    """Read proposals from the folder of caches; None if there are none, or no valid ones."""
    try:
        boxes = np.load(cache_folder() / "proposals" / _file_name(key), allow_pickle=False)
    except READ_ERRORS:
        return None
    is_valid = boxes.ndim == 2 and boxes.shape[1:] == (4,) and boxes.dtype == np.int16
    return boxes if is_valid else None


def _write(key: str, boxes: NDArray[np.int16]) -> None:
    content = io.BytesIO()
    np.save(content, boxes)
    folder = cache_folder() / "proposals"
    with suppress(OSError):  # a full disk must not end the run, which can compute them again
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder, _file_name(key), content.getvalue())
