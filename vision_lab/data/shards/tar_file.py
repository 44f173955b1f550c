"""Shards: tar files in WebDataset's format, which other programs read as well.

Files of a sample have the same name up to the first dot: ``000000012.jpg`` with ``000000012.cls``,
the label; ``000000012.mask.png``; or ``000000012.json``, boxes. Does not import torch.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from vision_lab.core.errors import DataError
from vision_lab.core.spec import UNKNOWN_LABEL
from vision_lab.data.formats.image_folder import EXTENSIONS
from vision_lab.data.formats.tar_images import Member, explain_tar_errors, read_members
from vision_lab.data.shards.index import Row

log = logging.getLogger(__name__)

LABEL_EXTENSION = "cls"

MASK_EXTENSION = "mask.png"

BOXES_EXTENSION = "json"

TARGET_EXTENSIONS = {
    "labels": LABEL_EXTENSION,
    "masks": MASK_EXTENSION,
    "boxes": BOXES_EXTENSION,
}
"""Extensions of the files of targets, without dot, by target type."""

BLOCK = tarfile.BLOCKSIZE

MAX_LABEL_BYTES = 10
"""Maximum length of a label in digits."""


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


def read_rows(file: Path, address: str, *, target_type: str) -> list[Row]:
    """Find the samples of a shard that was written by any program.

    Args:
        file: the shard, or a copy of it.
        address: its address, for messages.
        target_type: type of the targets to find.

    Raises:
        DataError: if it is not a tar file, or a label is not a number.
    """
    rows = []
    num_dropped = 0
    with explain_tar_errors(address), file.open("rb") as stream:
        all_members = read_members(stream, 0, file.stat().st_size)
        for key, members in _group_members(all_members, address):
            images = [name for name in members if f".{name}" in EXTENSIONS]
            if not images:
                num_dropped += 1
                continue
            image = members[images[0]]
            label, start, size = UNKNOWN_LABEL, 0, 0
            target = members.get(TARGET_EXTENSIONS.get(target_type, ""))
            if target is not None and target_type == "labels":
                label = _read_label(stream, target, address)
            elif target is not None:
                start, size = target.start, target.size
            rows.append(Row(f"{key}.{images[0]}", image.start, image.size, start, size, label))
    if num_dropped:
        log.warning("%s: left out %d samples without an image", address, num_dropped)
    return rows


def _group_members(
    all_members: Iterable[Member], address: str
) -> Iterator[tuple[str, dict[str, Member]]]:
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
        if extension.lower() in members:
            raise DataError(f"{address} contains two files {member.name} one after the other")
        members[extension.lower()] = member
    if members:
        yield key, members


def _read_label(stream: IO[bytes], member: Member, address: str) -> int:
    stream.seek(member.start)
    text = stream.read(min(member.size, MAX_LABEL_BYTES)).strip()
    if not (text.isascii() and text.isdigit()) or member.size > MAX_LABEL_BYTES:
        raise DataError(f"{address}: {member.name} contains {text!r}, not a class index")
    return int(text)
