"""Files are written whole or not at all."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vision_lab.files import refuse_link, replace, shown, trouble, write, write_rows
from vision_lab.types import ConfigurationError


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 10,000 bytes: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, small_files: None):
    file = tmp_path / "folder" / "a.json"
    write(file, "old é")
    with pytest.raises(OSError, match="File too large"):
        write(file, "n" * 20_000)
    assert file.read_text(encoding="utf-8") == "old é"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
    write(file, b"new")
    assert file.read_bytes() == b"new"


def test_what_fails_while_it_is_filled_leaves_the_old_file(tmp_path: Path):
    file = tmp_path / "a"
    write(file, "old")

    def fill(part) -> None:
        part.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(file, fill)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_rows_may_have_different_columns(tmp_path: Path):
    write_rows(tmp_path / "a.csv", [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "val": 2}])
    assert (tmp_path / "a.csv").read_text() == "epoch,loss,val\n0,0.5,\n1,,2\n"


def test_trouble_says_what_to_do(tmp_path: Path):
    full = trouble(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert str(full) == (
        f"{tmp_path} cannot be written: No space left on device. What was written before is whole. Make room, then "
        "repeat the command."
    )
    wrapped = RuntimeError("unexpected pos")
    wrapped.__context__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert "Disk quota exceeded" in str(trouble(wrapped, tmp_path))
    forbidden = trouble(PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/x"), tmp_path)
    assert str(forbidden) == (
        f"{tmp_path}/x: Permission denied. Type hydra.run.dir=<a folder that can be written> (in a sweep "
        "hydra.sweep.dir), or change the permissions."
    )
    elsewhere = trouble(PermissionError(errno.EACCES, "Permission denied", "/data/train"), tmp_path)
    assert str(elsewhere) == "/data/train: Permission denied. Change the permissions."
    assert trouble(ValueError("other"), tmp_path) is None


def test_links_are_not_followed(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "a.json.part").symlink_to(precious)
    (tmp_path / "a.json").symlink_to(precious)
    write(tmp_path / "a.json", "new")
    assert precious.read_text() == "mine"
    assert not (tmp_path / "a.json").is_symlink()
    (tmp_path / "evaluate").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="evaluate is a link: remove it"):
        refuse_link(tmp_path / "evaluate")


def test_a_path_as_one_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "outputs" / "x") == "outputs/x"
    assert shown(Path("/elsewhere")) == "/elsewhere"


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    """The whole command, by a user who may not write there (root may write anywhere, so it becomes nobody)."""
    tmp_path.chmod(0o555)
    code = (
        "import os, sys\n"
        "from vision_lab.app import main\n"
        "from vision_lab.modes import stored\n"
        "main(['--cfg', 'hydra'])\n"  # imports what nobody may not read
        "if os.getuid() == 0:\n"
        "    os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['name=x', 'debug=fast', 'trainer=cpu', 'logger=none']))"
    )
    for parent in tmp_path.parents:  # nobody must be able to walk in
        if os.access(parent, os.W_OK) and parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "HOME": str(tmp_path), "MPLCONFIGDIR": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "Permission denied. Type hydra.run.dir=<a folder that can be written>" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)
