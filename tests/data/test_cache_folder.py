"""Folders of caches: one writer at a time, kills, full disks, and what a run prints."""

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders import Outcome
from tests.data.test_cache import Listed, cached, read, spec, write_images
from tests.processes import ForkedCommand, fork_command
from vision_lab.core.errors import DataError
from vision_lab.core.machine import CACHE_VARIABLE
from vision_lab.data import cache_folder as module
from vision_lab.data.cache import CacheSettings
from vision_lab.data.cache_folder import CacheFolder
from vision_lab.data.cache_writer import Entry

Command = Callable[..., Outcome]

WORDS = (
    "data=folder",
    "data.spec.image_size=[32,32]",
    "data.batch_size=4",
    "model=squeezenet1_1",
    "augment=flip",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=none",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of caches on disk; those in memory are beside it."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "caches"))
    monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path)
    return tmp_path / "caches" / "images"


def memory_files(tmp_path: Path) -> list[str]:
    """Return the names of caches in memory, and of everything beside them."""
    return sorted(file.name for file in tmp_path.glob("vision_lab-*/*"))


def test_caches_in_memory_have_no_name_afterwards(tmp_path: Path):
    dataset = Listed([(path, 0) for path in write_images(tmp_path / "x")])
    opened = cached(dataset, spec("labels"), "memory")
    assert memory_files(tmp_path) == []
    assert read(opened, spec("labels"), 0)[0].shape == (3, 20, 20)


def test_caches_in_memory_keep_their_names_for_spawned_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "spawn")
    dataset = Listed([(path, 0) for path in write_images(tmp_path / "x")])
    opened = cached(dataset, spec("labels"), "memory")
    assert opened.file.is_file()
    assert torch.equal(pickle.loads(pickle.dumps(opened))[0][0].pixels, opened[0][0].pixels)


def test_a_run_that_failed_does_not_block_the_next_one_of_its_process(tmp_path: Path):
    """As in a sweep in which one run fails after its cache was written."""
    dataset = Listed([(path, 0) for path in write_images(tmp_path / "x")])
    settings = CacheSettings.from_spec(spec("labels"), max_pixels=10**6)
    failed = CacheFolder("memory", limit=10**9)
    failed.ensure(dataset, settings, kind="labels", name="train", num_workers=0)
    opened = cached(dataset, spec("labels"), "memory")
    assert read(opened, spec("labels"), 0)[0].shape == (3, 20, 20)
    assert memory_files(tmp_path) == []


def test_only_the_process_that_wrote_a_cache_deletes_its_name(tmp_path: Path):
    dataset = Listed([(path, 0) for path in write_images(tmp_path / "x")])
    settings = CacheSettings.from_spec(spec("labels"), max_pixels=10**6)
    first, second = (CacheFolder("memory", limit=10**9) for _ in range(2))
    first.ensure(dataset, settings, kind="labels", name="train", num_workers=0)
    second.release()  # another rank, which has not written
    assert second.open(dataset, settings, has_labels=True)[0][1] == 0
    first.release()
    assert memory_files(tmp_path) == []


def test_the_limit_names_what_to_type(tmp_path: Path, folder: Path):
    dataset = Listed([(path, 0) for path in write_images(tmp_path / "x")])
    settings = CacheSettings.from_spec(spec("labels"), max_pixels=10**6)
    caches = CacheFolder("disk", limit=1000)
    with pytest.raises(DataError, match=r"data\.cache_limit=1e-06 GB: type a larger"):
        caches.ensure(dataset, settings, kind="labels", name="train", num_workers=0)
    assert list(folder.glob("*.images")) == []


@pytest.mark.parametrize("place", ["disk", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_run_with_a_cache_equals_one_without(
    command: Command, make_folder: Callable[..., Path], tmp_path: Path, place: str
):
    root = make_folder(count=12)
    files = []
    for name, extra in (("files", ()), ("cached", (f"data.cache={place}",))):
        outcome = command(*WORDS, f"data.root={root}", *extra, f"name={name}")
        assert outcome.code == 0, outcome
        files.append((tmp_path / "outputs" / name / "metrics.csv").read_text())
    assert files[0] == files[1]


class Interference:
    """What happens to the next command that writes a cache.

    Args:
        monkeypatch: replaces the function that writes, in commands forked from now on.
        log: gets a line for each cache that is begun.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self.log = log
        self.kill_after: int | None = None
        self.seconds = 0.0
        self._write = module.write_entries
        monkeypatch.setattr(module, "write_entries", self.write)

    @property
    def num_written(self) -> int:
        return len(self.log.read_text().splitlines())

    def write(self, file: Any, entries: Any, **arguments: Any) -> int:
        with self.log.open("a") as log:
            log.write("begun\n")
        time.sleep(self.seconds)
        return self._write(file, self.interrupt(entries), **arguments)

    def interrupt(self, entries: Any) -> Iterator[Entry]:
        for index, entry in enumerate(entries):
            if index == self.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield entry


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_command_killed_while_it_writes_a_cache_ends_the_same(
    make_folder: Callable[..., Path], tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    interference = Interference(monkeypatch, tmp_path / "log")
    words = (*WORDS, f"data.root={make_folder(count=12)}", f"data.cache={place}", "name=killed")
    interference.kill_after = 5
    assert fork_command(tmp_path, *words).returncode == -signal.SIGKILL
    interference.kill_after = None
    repeated = fork_command(tmp_path, *words)
    assert repeated.returncode == 0, repeated.stderr
    expected = fork_command(tmp_path, *words[:-2], "name=whole")
    assert expected.returncode == 0, expected.stderr
    for name in ("metrics.csv", "model.pth"):
        files = [(tmp_path / "outputs" / run / name).read_bytes() for run in ("killed", "whole")]
        assert files[0] == files[1]
    assert memory_files(tmp_path) == []
    assert not list(tmp_path.glob("caches/images/*.part"))


@pytest.mark.slow
def test_two_commands_that_need_one_cache_write_it_once(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    interference = Interference(monkeypatch, tmp_path / "log")
    interference.seconds = 2.0
    words = (*WORDS, f"data.root={make_folder(count=12)}", "data.cache=disk")
    commands = [ForkedCommand(tmp_path, *words, f"name={name}") for name in ("a", "b")]
    for started in commands:
        started.communicate(timeout=120)
        assert started.returncode == 0, started.stderr
    printed = [started.stdout for started in commands]
    assert sum("waiting for another command that decodes train" in text for text in printed) == 1
    assert sum("36 images of train" in text for text in printed) == 1
    assert interference.num_written == 1
    files = [(tmp_path / "outputs" / name / "metrics.csv").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="requires Linux")
def test_a_disk_that_is_full_ends_the_command_with_an_advice(
    command: Command,
    make_folder: Callable[..., Path],
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The file that is being written is ``/dev/full``, to which nothing can be written."""

    def write_to_full(*arguments: Any, **settings: Any) -> int:
        with Path("/dev/full").open("wb", buffering=0) as file:
            return write(file, *arguments[1:], **settings)

    write = module.write_entries
    monkeypatch.setattr(module, "write_entries", write_to_full)
    root = make_folder(count=12)
    outcome = command(*WORDS, f"data.root={root}", "data.cache=disk", "name=full")
    assert outcome.code == 1
    assert "there is no space for the cache" in outcome.err
    assert CACHE_VARIABLE in outcome.err
    assert "Traceback" not in outcome.err
    assert [file.suffix for file in folder.iterdir()] == [".lock"]
