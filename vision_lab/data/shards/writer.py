"""Writing of a split as shards, in several processes, such that it can be interrupted."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from os.path import commonpath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from vision_lab.core.errors import DataError, UnreadableFile, UnreadableFileError
from vision_lab.core.protocols import Dataset
from vision_lab.core.spec import UNKNOWN_LABEL, DataSpec
from vision_lab.data.fingerprint import list_paths
from vision_lab.data.formats.image_folder import EXTENSIONS
from vision_lab.data.image_io import (
    ImageFile,
    InvalidImageError,
    find_path,
    open_source,
    to_uint8_image,
)
from vision_lab.data.shards.index import Row, Shard
from vision_lab.data.shards.storage import Storage, digest_file
from vision_lab.data.shards.tar_file import (
    BLOCK,
    BOXES_EXTENSION,
    MASK_EXTENSION,
    PackedSample,
    write_shard,
)
from vision_lab.data.shards.targets import encode_boxes, encode_mask, encode_png
from vision_lab.data.splits import evenly_spaced
from vision_lab.data.targets import check_annotated_size, check_mask_size
from vision_lab.data.transformed_dataset import init_worker
from vision_lab.training.seeding import derive_seed

SHARD_BYTES = 100_000_000
"""Size of shards if the number of their samples is not given."""

MAX_AUTO_SAMPLES = 100_000

NUM_MEASURED = 200
"""Number of samples whose size is measured to choose the number of samples of a shard."""

JPEG_QUALITY = 95

MAX_PROGRESS_BYTES = 1_000_000_000

COLOR_SPACES = {1: "GRAY", 3: "RGB"}
"""simplejpeg's name of the color space for each number of channels."""


@dataclass(frozen=True)
class PackSettings:
    """How samples are packed.

    Attributes:
        samples_per_shard: number of samples in a shard.
        shuffle: whether samples are in random order.
        shorter_side: shorter side of larger images in pixels; None for files as they are.
        max_pixels: images with more pixels are not decoded.
    """

    samples_per_shard: int
    shuffle: bool
    shorter_side: int | None
    max_pixels: int


class WrittenShard(NamedTuple):
    """A shard that is in the storage.

    Attributes:
        shard: its name, size and digest.
        rows: where its samples are.
        unreadable: samples that were left out.
        is_new: whether it was written now.
    """

    shard: Shard
    rows: list[Row]
    unreadable: list[UnreadableFile]
    is_new: bool


class SplitWriter(torch.utils.data.Dataset[WrittenShard]):
    """Writes the shard of each index, unless an interrupted command has written it before.

    Args:
        dataset: the samples.
        split: name of the split, with which the names of its shards begin.
        spec: spec of the data.
        settings: how samples are packed.
        storage: where shards are written.
        key: hash of all that the shards depend on.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        spec: DataSpec,
        settings: PackSettings,
        *,
        storage: Storage,
        key: str,
    ) -> None:
        self.dataset = dataset
        self.split = split
        self.encoder = SampleEncoder(spec, settings)
        self.settings = settings
        self.storage = storage
        self.key = key
        self.order = list(range(len(dataset)))
        if settings.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(len(dataset)))
            self.order = torch.randperm(len(dataset), generator=generator).tolist()
        paths = list_paths(dataset)
        self.folder = commonpath([path.parent for path in paths]) if paths else ""

    def __len__(self) -> int:
        return -(-len(self.order) // self.settings.samples_per_shard)

    def __getitem__(self, number: int) -> WrittenShard:
        name = f"{self.split}-{number:06d}"
        written = self._read_progress(name)
        return written or self._write(number, name)

    def write_all(self, *, num_workers: int) -> Iterator[WrittenShard]:
        """Write all shards.

        Args:
            num_workers: number of processes; 0 for this one.
        """
        loader = DataLoader(
            self,
            batch_size=None,
            num_workers=num_workers,
            worker_init_fn=init_worker,
            collate_fn=_identity,
        )
        yield from loader

    def _write(self, number: int, name: str) -> WrittenShard:
        unreadable: list[UnreadableFile] = []
        size = self.settings.samples_per_shard
        indices = self.order[number * size : (number + 1) * size]
        with _temporary_folder(name) as folder:
            path = folder / f"{name}.tar"
            with path.open("wb") as file:
                samples = self._encode(number * size, indices, unreadable)
                rows = write_shard(file, samples)
            shard = Shard(path.name, path.stat().st_size, digest_file(path), len(rows))
            self.storage.upload(path, path.name)
        progress = {
            "key": self.key,
            "shard": shard._asdict(),
            "rows": rows,
            "unreadable": unreadable,
        }
        self.storage.write(f"{name}.json", json.dumps(progress).encode())
        return WrittenShard(shard, rows, unreadable, is_new=True)

    def _encode(
        self, start: int, indices: Sequence[int], unreadable: list[UnreadableFile]
    ) -> Iterator[PackedSample]:
        for position, index in enumerate(indices, start):
            try:
                source, target = self.dataset[index]
            except UnreadableFileError as error:
                unreadable.append(error.unreadable)
                continue
            path = find_path(source) or ""
            name = path.removeprefix(self.folder).lstrip("/")
            try:
                yield self.encoder.encode(f"{position:09d}", name, source, target)
            except InvalidImageError as error:
                unreadable.append(UnreadableFile(path or f"sample {index}", str(error)))

    def _read_progress(self, name: str) -> WrittenShard | None:
        """Read what an interrupted command has noted about a shard that it has written."""
        try:
            content = self.storage.read(f"{name}.json", max_bytes=MAX_PROGRESS_BYTES)
            values = json.loads(content)
            if values["key"] != self.key:
                return None
            shard = Shard(**values["shard"])
            rows = [Row(*row) for row in values["rows"]]
            if values["unreadable"]:
                return None  # the files may have been repaired
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        if self.storage.size(shard.name) != shard.size:
            return None
        return WrittenShard(shard, rows, [], is_new=False)


class SampleEncoder:
    """Encodes samples as files.

    Args:
        spec: spec of the data.
        settings: how samples are packed.
    """

    def __init__(self, spec: DataSpec, settings: PackSettings) -> None:
        self.spec = spec
        self.settings = settings

    def encode(self, key: str, name: str, source: Any, target: Any) -> PackedSample:
        """Encode a sample.

        Args:
            key: its name in the shard.
            name: its original path; empty if it was not a file.
            source: the image: a path, a file in memory, or any array or image.
            target: its target.

        Raises:
            InvalidImageError: if it cannot be read or encoded.
        """
        file = open_source(source, max_pixels=self.settings.max_pixels)
        channels = self.spec.channels
        if file is not None:
            image = file.decode(channels=channels)
        else:
            image = to_uint8_image(source, channels=channels, max_pixels=self.settings.max_pixels)
        self._check_target(target, (image.shape[-2], image.shape[-1]))
        resized, target = self._resize(image, target)
        if file is not None and resized is image:
            content, extension = file.content, _find_extension(find_path(source), file)
        else:
            is_jpeg = file is not None and file.size is not None
            content, extension = self._encode_pixels(resized, is_jpeg=is_jpeg)
        label = UNKNOWN_LABEL
        encoded, target_extension = None, ""
        if self.spec.target_type == "labels":
            label = UNKNOWN_LABEL if target is None else int(target)
        elif self.spec.target_type == "masks" and target is not None:
            encoded, target_extension = encode_mask(target), MASK_EXTENSION
        elif self.spec.target_type == "boxes" and target is not None:
            encoded, target_extension = encode_boxes(target), BOXES_EXTENSION
        return PackedSample(key, name, content, extension, encoded, target_extension, label)

    def _check_target(self, target: Any, size: tuple[int, int]) -> None:
        """Check that a target is for an image of a size."""
        if target is None:
            return
        if self.spec.target_type == "masks":
            check_mask_size(np.asarray(target).shape, size)
        elif self.spec.target_type == "boxes":
            check_annotated_size(target.get("size"), size)

    def _resize(self, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
        """Reduce an image and its target."""
        height, width = image.shape[-2:]
        side = self.settings.shorter_side
        if side is None or side >= min(height, width):
            return image, target
        scale = side / min(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        resized = F.resize(image, list(size), antialias=True)
        if target is None or self.spec.target_type in ("labels", "none"):
            return resized, target
        if self.spec.target_type == "masks":
            mask = torch.as_tensor(np.asarray(target))[None]
            nearest = F.resize(mask, list(size), interpolation=F.InterpolationMode.NEAREST)
            return resized, nearest[0].numpy()
        return resized, scale_boxes(target, old=(height, width), new=size)

    def _encode_pixels(self, image: torch.Tensor, *, is_jpeg: bool) -> tuple[bytes, str]:
        channels = image.shape[0]
        if channels not in COLOR_SPACES:
            raise InvalidImageError(f"it has {channels} channels; files have 1 or 3")
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        if is_jpeg:
            space = COLOR_SPACES[channels]
            return simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, space, "444"), "jpg"
        return encode_png(pixels[:, :, 0] if channels == 1 else pixels), "png"


def scale_boxes(
    target: Mapping[str, Any], *, old: tuple[int, int], new: tuple[int, int]
) -> dict[str, Any]:
    """Scale boxes with their image.

    Args:
        target: the boxes, see ``core.protocols.Dataset``.
        old: (height, width) of the image in pixels.
        new: its new (height, width).
    """
    scaled = dict(target)
    y_scale, x_scale = new[0] / old[0], new[1] / old[1]
    if not target.get("relative", False):
        factors = np.array([x_scale, y_scale, x_scale, y_scale], np.float32)
        scaled["boxes"] = np.asarray(target["boxes"], np.float32).reshape(-1, 4) * factors
    if "area" in target:
        scaled["area"] = np.asarray(target["area"], np.float32) * np.float32(x_scale * y_scale)
    if target.get("size") is not None:
        scaled["size"] = new
    return scaled


def choose_samples_per_shard(dataset: Dataset, encoder: SampleEncoder) -> int:
    """Choose the number of samples of a shard, such that it has about ``SHARD_BYTES``.

    Args:
        dataset: the samples.
        encoder: encodes them as files.
    """
    sizes = []
    for index in evenly_spaced(len(dataset), min(NUM_MEASURED, len(dataset))):
        with suppress(UnreadableFileError, InvalidImageError):
            source, target = dataset[index]
            sample = encoder.encode("", "", source, target)
            files = [sample.image, sample.target or b"", b"0"]  # the last is the label
            sizes.append(sum(BLOCK * (1 + ceil(len(file) / BLOCK)) for file in files))
    mean = max(1.0, sum(sizes) / max(1, len(sizes)))
    return max(1, min(MAX_AUTO_SAMPLES, round(SHARD_BYTES / mean)))


def hash_plan(content: Mapping[str, Any]) -> str:
    """Hash what shards depend on."""
    text = json.dumps(content, sort_keys=True)
    return blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


@contextmanager
def _temporary_folder(name: str) -> Iterator[Path]:
    """Create a folder for a shard before it is copied.

    Args:
        name: name of the shard, for the error.

    Raises:
        DataError: if the shard cannot be written; torch would lose the number of an OSError.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        advice = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = ": set TMPDIR to a folder with more space, or type a smaller "
            advice += "mode.samples_per_shard"
        folder_name = tempfile.gettempdir()
        raise DataError(f"{name}.tar cannot be made in {folder_name}: {error}{advice}") from error


def _find_extension(path: str | None, file: ImageFile) -> str:
    """Return the extension of an image file, without dot; that of its format if it has none."""
    suffix = Path(path or "").suffix.lower()
    return suffix.lstrip(".") if suffix in EXTENSIONS else file.format.lower()


def _identity(item: Any) -> Any:
    return item
