"""Files in folders and at addresses, and what happens if these fail."""

import io
import pickle
from pathlib import Path

import pytest

from tests.data.shards.servers import Fault, FaultyProxy
from vision_lab.core.errors import DataError
from vision_lab.data.shards import storage
from vision_lab.data.shards.storage import Storage, digest_file, is_plain_name

PLACES = pytest.mark.parametrize("place", ["folder", "s3"])


def make_storage(place: str, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "files") if place == "folder" else f"s3://bucket/{tmp_path.name}")


@PLACES
def test_files_are_written_listed_read_and_deleted(s3: FaultyProxy, tmp_path: Path, place: str):
    files = make_storage(place, tmp_path)
    files.write("b.txt", b"hello")
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    files.upload(source, "a.bin")
    assert list(files.list_files()) == ["a.bin", "b.txt"]
    assert files.list_files()["a.bin"].size == 10
    assert files.size("a.bin") == 10
    assert files.read("b.txt", max_bytes=5) == b"hello"
    with pytest.raises(DataError, match=r"b\.txt has 5 bytes, more than 4"):
        files.read("b.txt", max_bytes=4)
    files.delete("b.txt")
    files.delete("b.txt")
    assert files.size("b.txt") is None
    with pytest.raises(FileNotFoundError):
        files.read("b.txt", max_bytes=5)


def test_a_download_continues_where_the_connection_was_cut(
    s3: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "BLOCK_BYTES", 1000)
    files = make_storage("s3", tmp_path)
    content = bytes(range(250)) * 10
    files.write("shard.tar", content)
    s3.faults.append(Fault("shard.tar", times=2, cut_after=300))
    s3.requests.clear()
    copy = io.BytesIO()
    digest = files.download("shard.tar", copy, size=2500)
    assert copy.getvalue() == content
    path = tmp_path / "copy"
    path.write_bytes(content)
    assert digest == digest_file(path)
    assert len(s3.requests) == 5  # three blocks, of which one was asked for three times


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_for_a_while_is_asked_again(
    s3: FaultyProxy, tmp_path: Path, status: int
):
    files = make_storage("s3", tmp_path)
    files.write("a", b"hello")
    s3.faults.append(Fault("/a", times=2, status=status))
    assert files.read("a", max_bytes=10) == b"hello"


def test_a_server_that_does_not_recover_is_named(s3: FaultyProxy, tmp_path: Path):
    files = make_storage("s3", tmp_path)
    files.write("a", b"hello")
    s3.requests.clear()
    s3.faults.append(Fault("/a", times=1000, status=503))
    with pytest.raises(DataError, match=r"s3://bucket/.*/a cannot be reached after 5 attempts: "):
        files.read("a", max_bytes=10)
    assert len(s3.requests) < 60


def test_a_server_that_does_not_answer_is_named(
    s3: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 2)
    files = make_storage("s3", tmp_path)
    s3.faults.append(Fault("/a", times=1000, delay=0.5))
    with pytest.raises(DataError, match=r"/a cannot be reached after 2 attempts: .*imeout"):
        files.size("a")


def test_a_slow_answer_is_waited_for(
    s3: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 1)
    files = make_storage("s3", tmp_path)
    files.write("a", b"hello")
    s3.faults.append(Fault("/a", times=3, delay=0.3))
    assert files.read("a", max_bytes=10) == b"hello"


def test_missing_credentials_say_what_to_set(
    s3: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = make_storage("s3", tmp_path)
    files.write("a", b"hello")
    s3.faults.append(Fault("/a", times=1000, status=403))
    with pytest.raises(DataError, match=r"access is denied .*set AWS_ACCESS_KEY_ID and"):
        files.read("a", max_bytes=10)
    s3.faults.clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"access is denied .*set AWS_ACCESS_KEY_ID and"):
        make_storage("s3", tmp_path).read("a", max_bytes=10)


def test_a_bucket_or_folder_that_does_not_exist_is_named(s3: FaultyProxy, tmp_path: Path):
    with pytest.raises(DataError, match="there is nothing at s3://missing/data"):
        Storage("s3://missing/data").list_files()
    with pytest.raises(DataError, match="cannot be written, there is no such bucket"):
        Storage("s3://missing/data").write("a", b"")
    with pytest.raises(DataError, match=r"there is no folder .*/missing: type data.root="):
        Storage(str(tmp_path / "missing")).list_files()


@pytest.mark.parametrize("address", ["", "s3://", "s3:///", "https://"])
def test_an_empty_address_is_named(address: str):
    with pytest.raises(DataError, match=r"is empty: type a folder, or an address such as s3://bu"):
        Storage(address)


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        Storage(str(tmp_path / "file")).read("index.json", max_bytes=10)
    with pytest.raises(DataError, match=r"there is no folder .*/file: type data\.root="):
        Storage(str(tmp_path / "file")).check_folder()


def test_unfinished_uploads_of_killed_commands_are_deleted(tmp_path: Path):
    (tmp_path / ".train-000000.tar.123.part").write_bytes(b"unfinished")
    (tmp_path / "source").write_bytes(b"complete")
    Storage(str(tmp_path)).upload(tmp_path / "source", "train-000000.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "train-000000.tar"]


@pytest.mark.parametrize(
    "address", ["ssh://host/x", "github://a:b@c/d", "filecache::s3://a/b", "reference://x"]
)
def test_other_protocols_are_refused(address: str):
    with pytest.raises(DataError, match="is not supported: type a folder, or an address that"):
        Storage(address)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> None:
        raise ImportError

    monkeypatch.setattr("fsspec.filesystem", fail)
    with pytest.raises(DataError, match=r"s3:// requires s3fs: type pip install 'vision_lab\[str"):
        Storage("s3://bucket/a").size("b")
    with pytest.raises(DataError, match=r"gs:// requires gcsfs: type pip install gcsfs"):
        Storage("gs://bucket/a").size("b")


def test_connections_are_not_sent_to_other_processes(s3: FaultyProxy, tmp_path: Path):
    files = make_storage("s3", tmp_path)
    files.write("a", b"hello")
    copy = pickle.loads(pickle.dumps(files))
    assert copy._file_systems == {}
    assert copy.read("a", max_bytes=10) == b"hello"


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "", ".hidden", "a\nb", 3, None])
def test_names_in_files_of_others_are_no_paths(name: object):
    assert not is_plain_name(name)
    assert is_plain_name("train-000012.tar")


def test_two_commands_do_not_write_to_a_folder(tmp_path: Path):
    with (
        Storage(str(tmp_path)).lock(),
        pytest.raises(DataError, match="another command is writing to"),
        Storage(str(tmp_path)).lock(),
    ):
        pass
    assert not list(tmp_path.iterdir())
