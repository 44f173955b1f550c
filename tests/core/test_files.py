"""Files are written completely or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._inductor.exc import InductorError

from vision_lab.core.documents import DocumentError, read_yaml
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.failures import explain_failure
from vision_lab.core.files import (
    delete_file,
    format_path,
    open_file,
    read_bytes,
    reject_link,
    reject_links,
    rename_file,
    replace_file,
    write_csv,
    write_file,
)


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path, small_files: None):
    file = tmp_path / "folder" / "a.json"
    write_file(tmp_path, "folder/a.json", "old é")
    with pytest.raises(OSError, match="File too large"):
        write_file(tmp_path, "folder/a.json", "n" * 20_000)
    assert file.read_text(encoding="utf-8") == "old é"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
    write_file(tmp_path, "folder/a.json", b"new")
    assert file.read_bytes() == b"new"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path):
    write_file(tmp_path, "a", "old")

    def fill(part) -> None:
        part.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path, "a", fill)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_rows_may_have_different_columns(tmp_path: Path):
    write_csv(tmp_path, "a.csv", [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "val": 2}])
    assert (tmp_path / "a.csv").read_text() == "epoch,loss,val\n0,0.5,\n1,,2\n"


def test_failures_say_what_to_do(tmp_path: Path):
    full = explain_failure(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert str(full) == (
        f"{tmp_path} cannot be written: No space left on device. The files already written are intact. Free some space, "
        "then repeat the command."
    )
    wrapped = RuntimeError("unexpected pos")
    wrapped.__context__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert "Disk quota exceeded" in str(explain_failure(wrapped, tmp_path))
    forbidden = explain_failure(
        PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/x"), tmp_path
    )
    assert str(forbidden) == (
        f"{tmp_path}/x: Permission denied. Type hydra.run.dir=<a writable folder> (in a sweep "
        "hydra.sweep.dir), or change the permissions."
    )
    elsewhere = explain_failure(
        PermissionError(errno.EACCES, "Permission denied", "/data/train"), tmp_path
    )
    assert str(elsewhere) == "/data/train: Permission denied. Change the permissions."
    in_the_way = IsADirectoryError(errno.EISDIR, "Is a directory", "a.png.part", None, "a.png")
    assert str(explain_failure(in_the_way, tmp_path)) == (
        f"a.png in {tmp_path}: Is a directory. Move it away, then repeat the command."
    )
    data = NotADirectoryError(errno.ENOTDIR, "Not a directory", "/data/train/a")
    assert str(explain_failure(data, tmp_path)) == (
        "/data/train/a: Not a directory. Type another path, or remove the file or folder in the way."
    )
    assert explain_failure(ValueError("other"), tmp_path) is None
    small = explain_failure(
        ValueError("Expected more than 1 value per channel when training, got ..."), tmp_path
    )
    assert "type another data.batch_size=" in str(small)


def test_links_are_not_followed(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / "a.json.part").symlink_to(precious)
    (run / "a.json").symlink_to(precious)
    write_file(run, "a.json", "new")
    assert not (run / "a.json").is_symlink()
    (run / "link.json").symlink_to(precious)
    delete_file(run, "link.json")
    assert not (run / "link.json").is_symlink()
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["samples/0.png", "samples/inner/0.png", "samples/precious"])
def test_links_in_parent_folders_are_refused(tmp_path: Path, name: str):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "inner").mkdir(parents=True)
    (elsewhere / "precious").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / "samples").symlink_to(elsewhere)
    for act in (
        lambda: write_file(run, name, "new"),
        lambda: write_csv(run, name, [{"a": 1}]),
        lambda: delete_file(run, name),
        lambda: rename_file(run, name, "other"),
    ):
        with pytest.raises(
            ConfigurationError,
            match="samples is a symbolic link: remove it; a folder will be created",
        ):
            act()
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["inner", "precious"]
    assert (elsewhere / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "", "."])
def test_names_must_stay_below_the_folder(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="is not a relative path"):
        write_file(tmp_path, name, "")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path):
    write_file(tmp_path, "samples", "")
    with pytest.raises(ConfigurationError, match="samples is not a folder: remove it"):
        write_file(tmp_path, "samples/0.png", "")


def test_the_longest_name_can_be_written(tmp_path: Path):
    name = "n" * 255
    write_file(tmp_path, name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_deleted_folder_is_not_created_again(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught:
        write_file(tmp_path / "gone", "status.json", "{}")
    assert not (tmp_path / "gone").exists()
    explained = explain_failure(caught.value, tmp_path / "gone")
    assert (
        "gone no longer exists: it was deleted or renamed while the command was writing to it"
        in str(explained)
    )


def test_links_in_a_folder_are_named(tmp_path: Path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    reject_links(run)
    (run / "checkpoints" / "best.ckpt").symlink_to("/nowhere")
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(
        ConfigurationError,
        match="contains links, pipes or devices; writing to them would change files outside the folder:",
    ) as caught:
        reject_links(tmp_path / "link")  # the folder itself may be one
    assert "checkpoints/best.ckpt" in str(caught.value)
    with pytest.raises(ConfigurationError, match="link is a symbolic link: remove it"):
        reject_link(tmp_path / "link")


def test_existing_files_keep_a_name(tmp_path: Path):
    for content in (b"one", b"two", b"three"):
        replace_file(
            tmp_path,
            "c/last",
            lambda file, content=content: file.write(content),
            keep_as="previous",
        )
    found = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    assert found == {"last": b"three", "previous": b"two"}


def test_a_path_is_shown_as_one_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert format_path(tmp_path / "outputs" / "x") == "outputs/x"
    assert format_path(Path("/elsewhere")) == "/elsewhere"


def test_a_folder_without_write_permission(tmp_path: Path):
    """The command is run by a user without permission; root becomes nobody."""
    tmp_path.chmod(0o555)
    code = (
        "import os, sys\n"
        "from vision_lab.cli.main import main\n"
        "from vision_lab.modes import finished\n"
        "main(['--cfg', 'hydra'])\n"  # imports what nobody may not read
        "if os.getuid() == 0:\n"
        "    os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['name=x', 'debug=fast', 'trainer=cpu', 'logger=none']))"
    )
    for parent in tmp_path.parents:  # nobody must be able to walk in
        if (
            os.access(parent, os.W_OK)
            and parent.stat().st_uid == os.getuid()
            and parent != Path("/")
        ):
            parent.chmod(parent.stat().st_mode | 0o055)
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "HOME": str(tmp_path), "MPLCONFIGDIR": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Permission denied. Type hydra.run.dir=<a writable folder>" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)


def test_errors_of_the_compiler_name_the_setting():
    error = InductorError(RuntimeError("no C++ compiler was found"), None)
    text = str(explain_failure(error, Path("outputs/a")))
    assert text.startswith("torch.compile cannot compile the network here (")
    assert "no C++ compiler was found" in text
    assert "type trainer.compile=false" in text


def test_running_out_of_memory_is_reported(tmp_path: Path):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    for error in (caught.value, gpu, MemoryError("Unable to allocate 7 TiB for an array")):
        text = str(explain_failure(error, tmp_path))
        assert text.startswith("out of memory (")
        assert "type a smaller data.batch_size=" in text


def test_a_pipe_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(OSError, match="not a file"):
            open_file(tmp_path / name)
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file") == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_bytes(tmp_path / "file", max_bytes=4)


def test_a_file_without_data_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Like the kernel's log in /proc, which looks like a regular file but has no data."""
    (tmp_path / "log").write_bytes(b"x")
    assert read_bytes(tmp_path / "log") == b"x"

    def wait(*_: int) -> bytes:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "read", wait)
    with pytest.raises(OSError, match="not a file"):
        read_bytes(tmp_path / "log")
    with pytest.raises(DocumentError, match="not a file"):
        read_yaml(tmp_path / "log")


def test_a_pipe_in_a_run_folder_is_refused(tmp_path: Path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "events.out.tfevents.1")
    with pytest.raises(ConfigurationError, match="contains links, pipes or devices"):
        reject_links(tmp_path)
