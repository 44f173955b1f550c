"""Shards: tar files in WebDataset's format, which other programs read as well.

Files of a sample have the same name up to the first dot: ``000000012.jpg`` with ``000000012.cls``, the
label; ``000000012.mask.png``; or ``000000012.json``, boxes. Does not import torch.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from vision_lab.core.errors import DataError
from vision_lab.core.spec import UNKNOWN_LABEL
from vision_lab.core.text import first_line
from vision_lab.data.formats.image_folder import EXTENSIONS
from vision_lab.data.formats.tar_images import Member, read_members
from vision_lab.data.shards.index import Row

log = logging.getLogger(__name__)

LABEL_EXTENSION = "cls"

MASK_EXTENSION = "mask.png"

BOXES_EXTENSION = "json"

BLOCK = tarfile.BLOCKSIZE

MAX_LABEL_BYTES = 10
"""Maximum length of a label in digits."""


class LabelError(Exception):
    """A label that is not a class index."""


class PackedSample(NamedTuple):
    """A sample to write.

    Attributes:
        key: its name in the shard, without dots.
        name: its original path; empty if it was not a file.
        image: the image file.
        extension: extension of the image file, without dot.
        target: the mask or boxes, as a file; None if there are none.
        target_extension: ``MASK_EXTENSION`` or ``BOXES_EXTENSION``.
        label: its label, or ``UNKNOWN_LABEL``.
    """

    key: str
    name: str
    image: bytes
    extension: str
    target: bytes | None
    target_extension: str
    label: int


def write_shard(file: IO[bytes], samples: Iterable[PackedSample]) -> list[Row]:
    """Write a shard, whose bytes depend on the samples only.

    Args:
        file: an empty file, open for writing.
        samples: the samples.

    Returns:
        Where each sample is.
    """
    rows = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            image_start = _add(tar, f"{sample.key}.{sample.extension}", sample.image)
            target_start = 0
            if sample.label != UNKNOWN_LABEL:
                _add(tar, f"{sample.key}.{LABEL_EXTENSION}", str(sample.label).encode())
            if sample.target is not None:
                name = f"{sample.key}.{sample.target_extension}"
                target_start = _add(tar, name, sample.target)
            size = len(sample.target or b"")
            image_size = len(sample.image)
            rows.append(Row(sample.name, image_start, image_size, target_start, size, sample.label))
    return rows


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file, and return where its content starts."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    start = tar.offset + BLOCK
    tar.addfile(info, io.BytesIO(content))
    return start


def read_rows(file: Path, address: str) -> list[Row]:
    """Find the samples of a shard that was written by any program.

    Args:
        file: the shard, or a copy of it.
        address: its address, for messages.

    Raises:
        DataError: if it is not a tar file, or a label is not a number.
    """
    rows = []
    num_dropped = 0
    try:
        with file.open("rb") as stream:
            all_members = read_members(stream, 0, file.stat().st_size)
            for key, members in _group_members(all_members):
                row = _find_sample(stream, key, members)
                if row is not None:
                    rows.append(row)
                else:
                    num_dropped += 1
    except LabelError as error:
        raise DataError(f"{address}: {error}") from error
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{address} is not an intact tar file: {first_line(error)}") from error
    if num_dropped:
        log.warning("%s: left out %d samples without an image", address, num_dropped)
    return rows


def _group_members(all_members: Iterable[Member]) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yield the key of each sample with its files by extension."""
    key = ""
    members: dict[str, Member] = {}
    for member in all_members:
        folder, slash, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if not stem:
            continue  # hidden files
        name = f"{folder}{slash}{stem}"
        if name != key:
            if members:
                yield key, members
            key, members = name, {}
        members[extension.lower()] = member
    if members:
        yield key, members


def _find_sample(stream: IO[bytes], key: str, members: Mapping[str, Member]) -> Row | None:
    """Return where the files of a sample are; None if there is no image."""
    images = [name for name in members if f".{name}" in EXTENSIONS]
    if not images:
        return None
    image = members[images[0]]
    label = UNKNOWN_LABEL
    if LABEL_EXTENSION in members:
        label = _read_label(stream, members[LABEL_EXTENSION])
    target = members.get(MASK_EXTENSION) or members.get(BOXES_EXTENSION)
    start, size = (target.start, target.size) if target else (0, 0)
    return Row(f"{key}.{images[0]}", image.start, image.size, start, size, label)


def _read_label(stream: IO[bytes], member: Member) -> int:
    stream.seek(member.start)
    text = stream.read(min(member.size, MAX_LABEL_BYTES)).strip()
    if not (text.isascii() and text.isdigit()) or member.size > MAX_LABEL_BYTES:
        raise LabelError(f"{member.name} contains {text!r}, not a class index")
    return int(text)
