"""``mode=pack data=... mode.shards=...``: write a dataset as shards for ``data=webdataset``."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.arguments import Count
from vision_lab.core.errors import ConfigurationError, DataError, UnreadableFile
from vision_lab.core.files import expand_home, format_path, reject_link, write_file
from vision_lab.core.spec import DataSpec
from vision_lab.core.text import format_si, summarize_names
from vision_lab.data.module import SPLITS, DataModule, explain_unreadable
from vision_lab.data.shards.index import (
    INDEX_FILENAME,
    PLAN_FILENAME,
    SplitTable,
    make_table,
    read_index,
    write_index,
)
from vision_lab.data.shards.storage import FileInfo, MissingFolderError, Storage
from vision_lab.data.shards.writer import (
    PackSettings,
    SampleEncoder,
    SplitWriter,
    choose_samples_per_shard,
    hash_plan,
)

PACKED_FILE_PATTERN = re.compile(r"(train|val|test)(-\d{6}\.(tar|json)|\.npz)")
"""Names of shards, of notes about those of an unfinished command, and of tables."""

MAX_LISTED = 5


def pack(
    config: Config,
    folder: Path,
    *,
    shards: str,
    samples_per_shard: Count | Literal["auto"],
    shuffle: bool,
    shorter_side: Count | None,
) -> None:
    """Write all splits of a dataset as shards; an interrupted command continues when repeated.

    Args:
        config: the config, of which only the data is used.
        folder: output folder, for ``unreadable.csv``.
        shards: folder or address to write to.
        samples_per_shard: number of samples in a shard; "auto" for about 100 MB.
        shuffle: whether training samples are in random order, the same each time.
        shorter_side: shorter side of larger images in pixels; None for files as they are.

    Raises:
        ConfigurationError: if the config is invalid.
        DataError: if files cannot be read, or the destination contains other shards.
    """
    reject_link(folder)
    console.silence_libraries()
    check_config(config, ["data"])
    storage = Storage(shards)
    _check_destination(storage, str(config["data"].get("root")))
    config = config.updated({"data.cache": None, "augment.train": [], "augment.eval": []})
    spec = build.spec(config)
    data = build.data(config, spec)
    data.prepare_data()
    data.setup()
    settings = PackSettings(1, shuffle, shorter_side, data.max_pixels)
    if samples_per_shard == "auto":
        encoder = SampleEncoder(spec, settings)
        samples_per_shard = choose_samples_per_shard(data.splits["train"], encoder)
    settings = replace(settings, samples_per_shard=samples_per_shard)
    packing = _Packing(data, spec, storage, settings=settings)
    with storage.lock():
        if config["force"]:
            packing.delete_packed_files()
        elif packing.is_complete():
            console.print_line(f"{shards} already contains this data")
            return
        else:
            packing.check_replaceable()
        unreadable = packing.write()
    _report_unreadable(unreadable, folder)
    console.print_line(f"type data=webdataset data.root={shards} to use it")


def _check_destination(storage: Storage, root: str) -> None:
    """Check that shards are not written into the data."""
    is_root = storage.address == root.rstrip("/")
    is_inside = False
    if storage.folder is not None and "://" not in root:
        folder, data_folder = storage.folder.resolve(), expand_home(root).resolve()
        is_root = folder == data_folder
        is_inside = folder.is_relative_to(data_folder)
    if is_root or is_inside:
        relation = "" if is_root else "inside "
        raise ConfigurationError(
            f"mode.shards={storage} is {relation}data.root, which would be overwritten: type "
            "another folder"
        )


class _Packing:
    """The packing of a dataset.

    Args:
        data: the data.
        spec: its spec.
        storage: where shards are written.
        settings: how samples are packed; val and test keep their order.
    """

    def __init__(
        self, data: DataModule, spec: DataSpec, storage: Storage, *, settings: PackSettings
    ) -> None:
        self.data = data
        self.spec = spec
        self.storage = storage
        self.settings = settings
        targets = {}
        for split, dataset in data.datasets.items():
            targets[split] = repr(getattr(dataset, "cache_key", None))  # how masks are read
        content = {
            "fingerprints": data.fingerprints(),
            "targets": targets,
            "settings": asdict(settings),
            "spec": asdict(spec),
        }
        self.source = json.loads(json.dumps(content))  # as it is read again
        self.key = hash_plan(self.source)

    def is_complete(self) -> bool:
        """Return whether the storage contains all shards of this data."""
        try:
            index = read_index(self.storage)
        except (FileNotFoundError, DataError):
            return False
        sizes = {name: info.size for name, info in self._list_packed_files().items()}
        for shards in index.shards.values():
            if any(sizes.get(shard.name) != shard.size for shard in shards):
                return False
        return index.source == self.source

    def check_replaceable(self) -> None:
        """Check that the storage contains no shards, or incomplete ones of this data.

        Raises:
            DataError: if it contains others.
        """
        try:
            is_replaceable = read_index(self.storage).source == self.source
        except FileNotFoundError:
            is_replaceable = self._has_own_plan()
        except DataError:  # a damaged index, or one of another version
            is_replaceable = False
        if not is_replaceable:
            raise DataError(
                f"{self.storage} contains shards of other data, or with other settings: type "
                "another mode.shards, or force=true to replace them"
            )

    def delete_packed_files(self) -> None:
        """Delete all shards, whatever they are of, and their index."""
        self.storage.delete(INDEX_FILENAME)
        for name in self._list_packed_files():
            self.storage.delete(name)

    def write(self) -> list[UnreadableFile]:
        """Write all splits and the index, and return the files that were left out."""
        self.storage.delete(INDEX_FILENAME)
        self.storage.write(PLAN_FILENAME, self.key.encode())
        unreadable: list[UnreadableFile] = []
        tables: dict[str, SplitTable] = {}
        for split in sorted(self.data.splits, key=SPLITS.index):
            tables[split] = self._write_split(self._writer(split), unreadable)
        write_index(self.storage, tables, spec=asdict(self.spec), source=self.source)
        used = {f"{split}.npz" for split in tables}
        used |= {shard.name for table in tables.values() for shard in table.shards}
        for name in self._list_packed_files():
            if name not in used:
                self.storage.delete(name)
        return unreadable

    def _has_own_plan(self) -> bool:
        """Return whether shards without an index, if any, are those of this command."""
        try:
            return self.storage.read(PLAN_FILENAME, max_bytes=100) == self.key.encode()
        except FileNotFoundError:
            return not self._list_packed_files()

    def _list_packed_files(self) -> dict[str, FileInfo]:
        """List the files that packing writes, but for the index."""
        try:
            files = self.storage.list_files()
        except MissingFolderError:
            return {}
        packed = {}
        for name, info in files.items():
            if name == PLAN_FILENAME or PACKED_FILE_PATTERN.fullmatch(name):
                packed[name] = info
        return packed

    def _writer(self, split: Any) -> SplitWriter:
        settings = self.settings
        if split != "train":
            settings = replace(settings, shuffle=False)
        return SplitWriter(
            self.data.splits[split],
            split,
            self.spec,
            settings,
            storage=self.storage,
            key=self.key,
        )

    def _write_split(self, writer: SplitWriter, unreadable: list[UnreadableFile]) -> SplitTable:
        started = time.monotonic()
        shards, rows, num_new = [], [], 0
        title = f"writing {len(writer):,} shards of {writer.split}"
        reading = writer.write_all(num_workers=self.data.effective_num_workers)
        for written in console.track(reading, title, total=len(writer)):
            unreadable += written.unreadable
            if self.data.on_error == "raise" and unreadable:
                raise DataError(explain_unreadable(unreadable[:MAX_LISTED]))
            if written.rows:
                shards.append(written.shard)
                rows.append(written.rows)
            num_new += written.is_new
        if not shards:
            raise DataError(f"no image of {writer.split} can be read")
        size = sum(shard.size for shard in shards)
        samples = sum(shard.samples for shard in shards)
        seconds = time.monotonic() - started
        console.print_line(
            f"{writer.split:<6} {samples:,} images in {len(shards):,} shards, {format_si(size)}B; "
            f"{num_new:,} written in {seconds:.0f} s"
        )
        return make_table(shards, rows)


def _report_unreadable(files: Sequence[UnreadableFile], folder: Path) -> None:
    if not files:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", "reason"), *files])
    write_file(folder, "unreadable.csv", text.getvalue())
    names = summarize_names([file.path for file in files], MAX_LISTED)
    console.print_warning(
        f"{len(files)} images were left out, listed in {format_path(folder / 'unreadable.csv')}: "
        f"{names}"
    )
