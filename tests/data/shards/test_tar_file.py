"""Shards as tar files, which other programs read and write."""

import io
import tarfile
from pathlib import Path

import pytest
import webdataset

from tests.data.shards.samples import photograph
from vision_lab.core.errors import DataError
from vision_lab.core.spec import UNKNOWN_LABEL
from vision_lab.data.shards.tar_file import PackedSample, read_rows, write_shard

SAMPLES = [
    PackedSample("000000000", "a/x.jpg", photograph(0), "jpg", None, "", 2),
    PackedSample("000000001", "a/y.PNG", b"png", "png", b"mask", "mask.png", UNKNOWN_LABEL),
    PackedSample("000000002", "", b"jpg", "jpeg", b'{"boxes":[]}', "json", UNKNOWN_LABEL),
]


def write(path: Path, samples: list[PackedSample] = SAMPLES) -> Path:
    with path.open("wb") as file:
        write_shard(file, samples)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_rows_say_where_images_and_targets_are(tmp_path: Path):
    path = tmp_path / "train-0.tar"
    with path.open("wb") as file:
        rows = write_shard(file, SAMPLES)
    content = path.read_bytes()
    for row, sample in zip(rows, SAMPLES, strict=True):
        assert row.name == sample.name
        assert content[row.image_start : row.image_start + row.image_size] == sample.image
        target = content[row.target_start : row.target_start + row.target_size]
        assert target == (sample.target or b"")
        assert row.label == sample.label


def test_a_shard_depends_on_its_samples_only(tmp_path: Path):
    first, second = write(tmp_path / "first.tar"), write(tmp_path / "second.tar")
    assert first.read_bytes() == second.read_bytes()


def test_webdataset_reads_our_shards(tmp_path: Path):
    path = write(tmp_path / "train-0.tar")
    labeled, masked, boxed = webdataset.WebDataset(str(path), shardshuffle=False)
    assert labeled["__key__"] == "000000000"
    assert labeled["jpg"] == SAMPLES[0].image
    assert labeled["cls"] == b"2"
    assert masked["mask.png"] == b"mask"
    assert boxed["json"] == b'{"boxes":[]}'


def test_we_read_shards_of_webdataset(tmp_path: Path):
    path = tmp_path / "train-0.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(3):
            sample = {"__key__": f"{number:06d}", "jpg": photograph(number), "cls": number}
            writer.write(sample)
    rows = read_rows(path, str(path), target_type="labels")
    content = path.read_bytes()
    assert [row.label for row in rows] == [0, 1, 2]
    for number, row in enumerate(rows):
        end = row.image_start + row.image_size
        assert content[row.image_start : end] == photograph(number)


def test_what_is_no_sample_is_left_out(tmp_path: Path):
    path = write_tar(
        tmp_path / "train-0.tar",
        {
            "._a.jpg": b"of a Mac",
            "README": b"text",
            "cats/a.b.jpg": b"jpg",
            "cats/a.cls": b"1",
            "cats/c.txt": b"a caption",
            "dogs/a.JPEG": b"other",
        },
    )
    rows = read_rows(path, str(path), target_type="labels")
    assert [(row.name, row.label) for row in rows] == [("dogs/a.jpeg", UNKNOWN_LABEL)]


@pytest.mark.parametrize("label", [b"cat", b"-1", b"1.5", b"", b"9" * 100])
def test_a_label_that_is_no_index_is_named(tmp_path: Path, label: bytes):
    path = write_tar(tmp_path / "train-0.tar", {"a.jpg": b"jpg", "a.cls": label})
    with pytest.raises(DataError, match=r"a\.cls contains .*, not a class index"):
        read_rows(path, str(path), target_type="labels")


def test_files_that_are_no_tar_files_are_named(tmp_path: Path):
    path = write(tmp_path / "train-0.tar")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"train-0\.tar is not an intact tar file"):
        read_rows(path, str(path), target_type="labels")
    path.write_bytes(b"x" * 3000)
    with pytest.raises(DataError, match=r"train-0\.tar is not an intact tar file"):
        read_rows(path, str(path), target_type="labels")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path):
    path = write(tmp_path / "train-0.tar")
    content = path.read_bytes()
    start = content.index(b"000000002")
    path.write_bytes(content[:start] + b"\xff" * 512 + content[start + 512 :])
    with pytest.raises(DataError, match="is not an intact tar file: it is damaged after"):
        read_rows(path, str(path), target_type="labels")
    path.write_bytes(content[:start])
    with pytest.raises(DataError, match="is not an intact tar file: it ends early"):
        read_rows(path, str(path), target_type="labels")
    path.write_bytes(content + content)
    with pytest.raises(DataError, match="is not an intact tar file: it is damaged after"):
        read_rows(path, str(path), target_type="labels")


def test_a_negative_size_is_no_endless_loop(tmp_path: Path):
    path = write_tar(tmp_path / "train-0.tar", {"a.jpg": b"jpg", "b.jpg": b"jpg"})
    header = tarfile.TarInfo("b.jpg")
    header.size = -512
    content = path.read_bytes()
    start = content.index(b"b.jpg")
    path.write_bytes(content[:start] + header.tobuf(tarfile.GNU_FORMAT) + content[start + 512 :])
    with pytest.raises(DataError, match="has the size -512"):
        read_rows(path, str(path), target_type="labels")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path):
    header = tarfile.TarInfo("PaxHeaders/a")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    path = tmp_path / "train-0.tar"
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**33)  # without content on the disk
    with pytest.raises(DataError, match="is not an intact tar file: a header has 8,5"):
        read_rows(path, str(path), target_type="labels")


def test_links_and_two_files_of_a_name_are_named(tmp_path: Path):
    path = write_tar(tmp_path / "train-0.tar", {"a.jpg": b"jpg"})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"b\.jpg is a link or a sparse file: write it with tar"):
        read_rows(path, str(path), target_type="none")
    path = write_tar(tmp_path / "train-0.tar", {"a.jpg": b"jpg"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(DataError, match=r"contains two files a\.jpg one after the other"):
        read_rows(path, str(path), target_type="none")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_headers_within_headers_are_refused(tmp_path: Path, kind: bytes):
    header = tarfile.TarInfo("name")
    header.type, header.size = kind, 10
    content = b"name".ljust(10, b"\0") if kind == tarfile.GNUTYPE_LONGNAME else b"10 path=a\n"
    path = tmp_path / "train-0.tar"
    path.write_bytes((header.tobuf(tarfile.GNU_FORMAT) + content.ljust(512, b"\0")) * 3000)
    with pytest.raises(DataError, match=r"train-0\.tar is not an intact tar file"):
        read_rows(path, str(path), target_type="none")


def test_the_target_is_that_of_the_type(tmp_path: Path):
    files = {"a.jpg": b"jpg", "a.mask.png": b"mask", "a.json": b"boxes", "a.cls": b"2"}
    path = write_tar(tmp_path / "train-0.tar", files)
    content = path.read_bytes()
    for target_type, expected in (("masks", b"mask"), ("boxes", b"boxes")):
        (row,) = read_rows(path, str(path), target_type=target_type)
        assert content[row.target_start : row.target_start + row.target_size] == expected
        assert row.label == UNKNOWN_LABEL
    (row,) = read_rows(path, str(path), target_type="labels")
    assert (row.label, row.target_size) == (2, 0)
