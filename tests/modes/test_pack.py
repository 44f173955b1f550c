"""``mode=pack`` and ``data=webdataset``: a run from shards is the run from files."""

import csv
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders import Outcome
from tests.data.shards.servers import S3, FaultyProxy, credentials
from tests.processes import ForkedCommand, fork_command

Command = Callable[..., Outcome]

TRAINING = (
    *("trainer=cpu", "trainer.max_epochs=2", "data.batch_size=4", "data.eval_batch_size=4"),
    *("logger=none", "callbacks.image_logger=null", "callbacks.sample_losses=null"),
)

SMALL_NETWORK = (
    "model=densenet121",
    "model.network._target_=torchvision.models.DenseNet",
    *("+model.network.block_config=[1,1,1,1]", "+model.network.growth_rate=8"),
    "+model.network.num_init_features=8",
)

LABELS = (*SMALL_NETWORK, "augment=pad_crop")

MASKS = ("task=segment", *SMALL_NETWORK, "head=fcn", "augment=flip")

BOXES = ("task=detect", *SMALL_NETWORK, "head=yolo", "augment=flip")

SCENES = ("data=scenes", "data.num_images={train: 24, val: 4, test: 4}")

WINDOWS = ("data.shuffle_window=8", "data.prefetch_shards=1")


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def same_results(first: Path, second: Path) -> bool:
    return all(
        (first / name).read_bytes() == (second / name).read_bytes()
        for name in ("metrics.csv", "model.pth")
    )


def test_a_run_from_shards_is_the_run_from_files(
    command: Command, tmp_path: Path, make_folder: Callable[..., Path]
):
    root = make_folder(count=16)
    data = ("data=folder", f"data.root={root}", "data.spec.image_size=[16,16]")
    packing = ("mode=pack", "mode.shards=shards", "mode.samples_per_shard=8", "data.num_workers=0")
    outcome = command(*packing, *data, "mode.shuffle=false")
    assert outcome.code == 0, outcome.err
    assert "train  38 images in 5 shards" in outcome.out
    assert "type data=webdataset data.root=shards to use it" in outcome.out
    again = command(*packing, *data, "mode.shuffle=false")
    assert "shards already contains this data" in again.out
    (tmp_path / "shards" / "train-000001.tar").unlink()
    repaired = command(*packing, *data, "mode.shuffle=false")
    assert repaired.code == 0, repaired.err
    assert (tmp_path / "shards" / "train-000001.tar").exists()
    other = command(*packing, *data)
    assert other.code == 1
    assert "contains shards of other data, or with other settings: type another" in other.err
    words = (*LABELS, *TRAINING, "data.num_workers=0", "trainer.max_epochs=1")
    from_files = command(*words, *data, "name=files")
    assert from_files.code == 0, from_files.err
    from_shards = command(*words, "data=webdataset", "data.root=shards", "name=shards")
    assert from_shards.code == 0, from_shards.err
    assert same_results(tmp_path / "outputs" / "files", tmp_path / "outputs" / "shards")
    checked = command("mode=check", "data=webdataset", "data.root=shards")
    assert checked.code == 0, checked.err
    assert "no problems found" in checked.out
    (tmp_path / "shards" / "train-000002.tar").unlink()
    changed = tmp_path / "shards" / "train-000001.tar"
    changed.write_bytes(changed.read_bytes()[:-1] + b"1")
    missing = command("mode=check", "data=webdataset", "data.root=shards")
    assert missing.code == 1
    assert "9 problems: all are listed in" in missing.err
    assert "shards/train-000001.tar: has changed: pack the data again" in missing.out
    assert "shards/train-000002.tar cannot be read: No such file" in missing.out
    stopped = command(
        *words, "data=webdataset", "data.root=shards", "data.num_workers=1", "data.on_error=skip"
    )
    assert stopped.code == 1
    assert stopped.err.splitlines()[-1] == (
        "error: shards/train-000002.tar cannot be read: No such file or directory"
    )
    assert "Traceback" not in stopped.err


def test_files_that_cannot_be_read_stop_packing_or_are_listed(
    command: Command, tmp_path: Path, make_folder: Callable[..., Path]
):
    root = make_folder(count=8)
    broken = sorted((root / "ash").iterdir())[2]
    broken.write_bytes(b"")
    words = ("mode=pack", "mode.shards=shards", "data.num_workers=0", "name=pack")
    data = ("data=folder", f"data.root={root}", "data.holdout_fraction=0.2")
    outcome = command(*words, *data)
    assert outcome.code == 1
    assert f"{broken}: the file is empty" in outcome.err
    assert "type data.on_error=skip to skip such files and list them" in outcome.err
    assert not (tmp_path / "shards" / "index.json").exists()
    skipped = command(*words, *data, "data.on_error=skip")
    assert skipped.code == 0, skipped.err
    assert "1 images were left out, listed in" in skipped.out + skipped.err
    (listing,) = tmp_path.rglob("unreadable.csv")
    assert listing.read_text() == f"path,reason\n{broken},the file is empty\n"


def test_shards_of_others_are_not_overwritten_without_being_told_so(
    command: Command, tmp_path: Path, make_folder: Callable[..., Path]
):
    root = make_folder(count=12)
    data = ("data=folder", f"data.root={root}", "data.num_workers=0")
    words = ("mode=pack", "mode.shards=shards", "mode.samples_per_shard=4", *data)
    into_data = command("mode=pack", f"mode.shards={root}", *data)
    assert into_data.code == 1
    assert "is data.root, which would be overwritten: type another folder" in into_data.err
    inside = command("mode=pack", f"mode.shards={root}/ash/../shards", *data)
    assert "is inside data.root, which would be overwritten" in inside.err
    (tmp_path / "shards").mkdir()
    other = tmp_path / "shards" / "train-000000.tar"
    other.write_bytes(b"of another program")
    refused = command(*words)
    assert refused.code == 1
    assert "contains shards of other data, or with other settings" in refused.err
    assert other.read_bytes() == b"of another program"
    assert command(*words, "force=true").code == 0
    assert len(list((tmp_path / "shards").glob("train-*.tar"))) == 7
    assert "already contains this data" in command(*words).out
    larger = command(*words, "data.spec.image_size=[48,48]")
    assert larger.code == 1  # the index would have another size
    assert "with other settings" in larger.err
    fewer = command(*words, "mode.samples_per_shard=16", "force=true")
    assert fewer.code == 0, fewer.err
    assert names(tmp_path / "shards") == [
        *("index.json", "test-000000.tar", "test.npz"),
        *("train-000000.tar", "train-000001.tar", "train.npz", "val-000000.tar", "val.npz"),
    ]


def test_an_interrupted_command_continues_but_only_with_its_own_data(
    command: Command, tmp_path: Path, make_folder: Callable[..., Path]
):
    root = make_folder(count=12)
    data = ("data=folder", f"data.root={root}", "data.num_workers=0")
    words = ("mode=pack", "mode.shards=shards", "mode.samples_per_shard=4", *data)
    broken = sorted((root / "cedar").iterdir())[5]
    content = broken.read_bytes()
    broken.write_bytes(content[:100])  # the command stops there
    assert command(*words).code == 1
    assert (tmp_path / "shards" / "packing").exists()
    other = command(*words, "mode.samples_per_shard=5")
    assert other.code == 1
    assert "contains shards of other data, or with other settings" in other.err
    skipped = command(*words, "data.on_error=skip")
    assert skipped.code == 0, skipped.err
    assert not (tmp_path / "shards" / "packing").exists()


def test_shards_without_index_need_what_the_index_would_say(command: Command, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    outcome = command("data=webdataset", "data.root=empty", "mode=check")
    assert outcome.code == 1
    assert "type data.spec.target_type=labels" in outcome.err
    unknown = command("data=webdataset", "data.root=ftp://host/x", "mode=check")
    assert unknown.code == 1
    assert "the protocol ftp is not supported" in unknown.err


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An S3 server with an empty cache."""
    server = S3()
    server.create_bucket()
    for name, value in credentials(server.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    yield server
    server.stop()


def find_data(words: tuple[str, ...], make_folder: Callable[..., Path]) -> tuple[str, ...]:
    """Return small data for a task."""
    if words is LABELS:
        root = make_folder(count=16)
        return ("data=folder", f"data.root={root}", "data.spec.image_size=[16,16]")
    if words is MASKS:
        return (*SCENES, "data.spec.target_type=masks", "data.spec.image_size=[32,32]")
    return SCENES


def pack_to_s3(
    command: Command, tmp_path: Path, words: tuple[str, ...], data: tuple[str, ...]
) -> str:
    """Pack data for a task, and return the address."""
    address = f"s3://bucket/{tmp_path.name}"
    packing = (f"mode.shards={address}", "mode.samples_per_shard=5", "mode.shuffle=false")
    task = [word for word in words if word.startswith("task=")]
    packed = command("mode=pack", *task, *packing, *data, "data.num_workers=0")
    assert packed.code == 0, packed.err
    return address


@pytest.mark.slow
@pytest.mark.parametrize("words", [LABELS, MASKS, BOXES], ids=["labels", "masks", "boxes"])
@pytest.mark.usefixtures("server")
def test_a_run_from_s3_is_the_run_from_files_with_any_number_of_workers(
    command: Command, tmp_path: Path, make_folder: Callable[..., Path], words: tuple[str, ...]
):
    data = find_data(words, make_folder)
    address = pack_to_s3(command, tmp_path, words, data)
    words = (*words, *TRAINING)
    from_files = command(*words, *data, "data.num_workers=0", "name=files")
    assert from_files.code == 0, from_files.err
    outputs = tmp_path / "outputs"
    for num_workers in (0, 1, 3):
        done = command(
            *words,
            *("data=webdataset", f"data.root={address}", *WINDOWS),
            *(f"data.num_workers={num_workers}", f"name=workers{num_workers}"),
        )
        assert done.code == 0, done.err
        assert same_results(outputs / "files", outputs / f"workers{num_workers}")


@pytest.fixture
def address(
    server: S3,
    command: Command,
    tmp_path: Path,
    make_folder: Callable[..., Path],
) -> str:
    """Twelve shards of four training images at an address."""
    root = make_folder(count=20)
    address = f"s3://bucket/{tmp_path.name}"
    packed = command(
        *("mode=pack", f"mode.shards={address}", "mode.samples_per_shard=4"),
        *("data=folder", f"data.root={root}", "data.spec.image_size=[16,16]"),
        "data.num_workers=0",
    )
    assert packed.code == 0, packed.err
    return address


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(LABELS, id="labels"),
        pytest.param(MASKS, id="masks", marks=pytest.mark.exhaustive),
        pytest.param(BOXES, id="boxes", marks=pytest.mark.exhaustive),
    ],
)
def test_a_killed_run_ends_like_an_uninterrupted_one_although_the_server_restarts(
    server: S3,
    command: Command,
    tmp_path: Path,
    make_folder: Callable[..., Path],
    words: tuple[str, ...],
):
    address = pack_to_s3(command, tmp_path, words, find_data(words, make_folder))
    words = (
        *(*words, *TRAINING, "data=webdataset", f"data.root={address}", "data.num_workers=2"),
        *(
            "data.shuffle_window=3",
            "data.prefetch_shards=1",
            "callbacks.resume_checkpoint.every_n_steps=3",
        ),
    )
    assert command(*words, "name=alone").code == 0
    killed = tmp_path / "outputs" / "killed"
    process = ForkedCommand(tmp_path, *words, "name=killed")
    while process.poll() is None and not (killed / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    server.stop()
    shutil.rmtree(tmp_path / "cache")
    restarted = S3(server.port)
    try:
        outcome = command(*words, "name=killed")
    finally:
        restarted.stop()
    assert outcome.code == 0, outcome.err
    assert same_results(tmp_path / "outputs" / "alone", killed)


@pytest.mark.slow
def test_two_processes_read_each_sample_once_and_each_shard_is_copied_once(
    server: S3, address: str, tmp_path: Path
):
    proxy = FaultyProxy(server.address)
    words = (
        *(*SMALL_NETWORK, *TRAINING, "data=webdataset", f"data.root={address}", "augment=flip"),
        *("data.num_workers=1", "data.shuffle_window=3", "data.prefetch_shards=1", "optimizer=sgd"),
        *("optimizer.lr=0.02", "+model.network.drop_rate=0.0", "trainer.max_epochs=1"),
        "callbacks.sample_losses={_target_: vision_lab.callbacks.sample_losses.SampleLosses, "
        "max_samples: 1000}",
    )
    one = fork_command(tmp_path, *words, "data.batch_size=4", "name=one")
    assert one.returncode == 0, one.stderr
    shutil.rmtree(tmp_path / "cache")
    two = fork_command(
        tmp_path,
        *(*words, "trainer=ddp_cpu", "data.batch_size=2", "name=two"),
        **credentials(proxy.address),
    )
    proxy.close()
    assert two.returncode == 0, two.stderr
    tables = []
    for name in ("one", "two"):
        with (tmp_path / "outputs" / name / "sample_losses.csv").open(newline="") as file:
            tables.append([row["sample"] for row in csv.DictReader(file)])
    assert len(tables[0]) == 60
    assert len(set(tables[1])) == len(tables[1]) == 60
    assert set(tables[0]) == set(tables[1])
    copied = [request for request in proxy.requests if "GET" in request and ".tar" in request]
    assert len(copied) == len(set(copied)) == 16  # twelve of train, two of val and of test
