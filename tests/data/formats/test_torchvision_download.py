"""torchvision's datasets: existing files are read, missing ones give a clear error offline."""

import gzip
import pickle
import socket
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from vision_lab.core.errors import DataError
from vision_lab.data.formats.torchvision_download import load_or_download


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args, **_options):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_existing_mnist_files_need_no_network(tmp_path: Path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 6), ("t10k", 4)):
        images = struct.pack(">4I", 0x803, count, 28, 28) + bytes(range(count)) * 784
        labels = struct.pack(">2I", 0x801, count) + bytes(range(count))
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            (raw / f"{name}-{kind}-ubyte").write_bytes(content)
            with gzip.open(raw / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(content)
    dataset = load_or_download(
        partial(torchvision.datasets.FashionMNIST, train=False), root=str(tmp_path), download=True
    )
    assert len(dataset) == 4
    assert dataset[3][1] == 3


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        load_or_download(
            partial(torchvision.datasets.CIFAR10, train=True), root=str(tmp_path), download=True
        )
    text = str(caught.value)
    assert text.startswith(
        f"CIFAR10 is missing or incomplete in {tmp_path}, and cannot be downloaded: "
    )
    assert "no network in tests" in text
    assert "Type data.root=<folder with the files of torchvision.datasets.CIFAR10>" in text


def test_cifar_from_existing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": np.zeros((2, 3072), dtype=np.uint8), "labels": [3, 4]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["x"] * 10}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    dataset = load_or_download(
        partial(torchvision.datasets.CIFAR10, train=False), root=str(tmp_path), download=True
    )
    assert [dataset[index][1] for index in (0, 1)] == [3, 4]
