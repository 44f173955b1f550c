"""``mode=pack data=... mode.shards=...``: write a dataset as shards for ``data=webdataset``."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.arguments import Count
from vision_lab.core.errors import DataError, UnreadableFile
from vision_lab.core.files import format_path, reject_link, write_file
from vision_lab.core.spec import DataSpec
from vision_lab.core.text import format_si, summarize_names
from vision_lab.data.module import SPLITS, DataModule
from vision_lab.data.shards.index import (
    INDEX_FILENAME,
    ShardIndex,
    SplitTable,
    digest_bytes,
    dump_index,
    dump_table,
    make_table,
    read_index,
)
from vision_lab.data.shards.storage import Storage
from vision_lab.data.shards.writer import (
    PackSettings,
    SplitWriter,
    choose_samples_per_shard,
    hash_plan,
)

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
    config = config.updated({"data.cache": None, "augment.train": [], "augment.eval": []})
    spec = build.spec(config)
    data = build.data(config, spec)
    data.prepare_data()
    data.setup()
    if samples_per_shard == "auto":
        samples_per_shard = choose_samples_per_shard(data.splits["train"])
    storage = Storage(shards)
    packing = _Packing(
        data,
        spec,
        storage,
        settings=PackSettings(samples_per_shard, shuffle, shorter_side, data.max_pixels),
    )
    if packing.is_complete(force=bool(config["force"])):
        console.print_line(f"{shards} already contains this data")
        return
    unreadable = packing.write()
    _report_unreadable(unreadable, folder)
    console.print_line(f"type data=webdataset data.root={shards} to use it")


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
        self.source = {"fingerprints": data.fingerprints(), "settings": asdict(settings)}
        self.key = hash_plan(self.source)

    def is_complete(self, *, force: bool) -> bool:
        """Return whether the storage contains these shards already.

        Raises:
            DataError: if it contains others, unless ``force``.
        """
        try:
            index = read_index(self.storage)
        except FileNotFoundError:
            return False
        if index.source == self.source:
            return not force
        if not force:
            raise DataError(
                f"{self.storage} contains shards of other data, or with other settings: type "
                "another mode.shards, or force=true to replace them"
            )
        return False

    def write(self) -> list[UnreadableFile]:
        """Write all splits and the index, and return the files that were left out."""
        self.storage.delete(INDEX_FILENAME)
        unreadable: list[UnreadableFile] = []
        splits = sorted(self.data.splits, key=SPLITS.index)
        writers = [self._writer(split) for split in splits]
        tables = {writer.split: self._write_split(writer, unreadable) for writer in writers}
        entries = {}
        for split, table in tables.items():
            content = dump_table(table)
            name = f"{split}.npz"
            self.storage.write(name, content)
            entries[split] = (name, digest_bytes(content))
        shards = {split: table.shards for split, table in tables.items()}
        index = ShardIndex(asdict(self.spec), self.source, shards, entries)
        self.storage.write(INDEX_FILENAME, dump_index(index).encode())
        for writer in writers:
            writer.delete_progress()
        return unreadable

    def _writer(self, split: Any) -> SplitWriter:
        settings = self.settings
        if split != "train":
            settings = PackSettings(**{**asdict(settings), "shuffle": False})
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
                raise DataError(_explain_unreadable(unreadable))
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


def _explain_unreadable(files: Sequence[UnreadableFile]) -> str:
    listed = "\n".join(f"  {file.path}: {file.reason}" for file in files[:MAX_LISTED])
    return (
        f"{len(files)} images cannot be read:\n{listed}\nFix or remove them (mode=check lists "
        "all), or type data.on_error=skip to leave such files out and list them."
    )


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
