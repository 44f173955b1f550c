"""Run a command in a process of its own, and notice what it must not do.

Each attempt has a folder: ``here/``, where the command is typed and may write; ``victim/``, whose files must stay as
they are; ``secret.txt``, which must not be copied; ``marker``, which appears when planted code runs.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

SECONDS = 30.0
MEMORY_BYTES = 2_000_000_000
ADDRESS_SPACE_BYTES = 3_000_000_000
"""More than there is at the start; beyond it an allocation fails, which is a finding too."""

FILE_BYTES = 300_000_000

SECRET = "canary-7f3a91"
"""Value of ``SECRET_TOKEN`` and content of ``secret.txt``."""

NOT_OURS = 98
"""Exit code of an attempt that could not be made: a defect of the attack itself."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

CHANGES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.symlink",
    "os.link",
    "shutil.rmtree",
}
"""Audit events of functions that change files; the first argument is a path."""

STARTS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "socket.connect",
    "ctypes.dlopen",
}
"""Audit events of what starts another program, loads one, or connects to another machine."""

ALLOWED_PROGRAMS = {"git", "uname", "lscpu"}
"""What the package itself starts, to describe the machine."""

PROGRAM = "vision_lab.__main__"

Make = Callable[[Random, Path, Path], list[str]]


@dataclass(frozen=True)
class Finding:
    """Something that a command must not do.

    Attributes:
        kind: which of the promises is broken.
        text: how.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        ending: the exit code, or how the process ended.
        words: the command.
        findings: what it did and must not do.
    """

    ending: str
    words: str
    findings: list[Finding] = field(default_factory=list)


def prepare() -> None:
    """Set what the processes of all attempts share."""
    os.environ["SECRET_TOKEN"] = SECRET
    os.environ["COLUMNS"] = "200"
    os.environ.pop("PL_GLOBAL_SEED", None)
    gc.collect()
    gc.freeze()  # so that no collection in a forked process copies this one's memory


def start(make: Make, chance: Random, runs: Path, folder: Path) -> Attempt:
    """Start an attempt in a process of its own.

    Args:
        make: writes its files and returns the words of its command.
        chance: its random numbers.
        runs: the folder of finished runs that ``make`` copies from.
        folder: the folder of the attempt, created here.
    """
    here, victim = folder / "here", folder / "victim"
    here.mkdir(parents=True)
    victim.mkdir()
    for name in ("00000.png", "notes.txt", "a.png", "best.ckpt", "metrics.csv"):
        (victim / name).write_bytes(b"precious" * 50)
    (folder / "secret.txt").write_text(f"{SECRET}\n")
    before = _digest(victim)
    process = os.fork()
    if process == 0:
        _work(make, chance, runs, folder)
    return Attempt(folder, process, before)


class Attempt:
    """A command at work.

    Args:
        folder: the folder of the attempt.
        process: the number of its process.
        before: digest of the files that it must not change.
    """

    def __init__(self, folder: Path, process: int, before: str) -> None:
        self.folder, self.process, self.before = folder, process, before
        self.began = time.monotonic()

    def poll(self) -> Outcome | None:
        """Return what came of it; None while it works."""
        process, status, used = os.wait4(self.process, os.WNOHANG)
        seconds = time.monotonic() - self.began
        timed_out = process == 0 and seconds > SECONDS
        if process == 0 and not timed_out:
            return None
        if timed_out:
            os.killpg(self.process, signal.SIGKILL)
            _, status, used = os.wait4(self.process, 0)
        return self._judge(status, used.ru_maxrss * 1024, timed_out=timed_out)

    def _judge(self, status: int, memory: int, *, timed_out: bool) -> Outcome:
        words = _read(self.folder / "words")
        code = os.waitstatus_to_exitcode(status)
        errors, printed = _read(self.folder / "stderr"), _read(self.folder / "stdout")
        findings = [
            Finding(*line.split("\t", 1)) for line in _read(self.folder / "audit").splitlines()
        ]
        if code == NOT_OURS:
            findings.append(Finding("defect of the attack", errors.strip().splitlines()[-1]))
        elif "Traceback (most recent call last)" in errors + printed:
            findings.append(Finding("traceback", _where(errors + printed)))
        elif code not in (0, 1, 2) and not timed_out:
            findings.append(Finding("crash", f"exit code {code}: {errors.strip()[-200:]}"))
        elif code in (1, 2) and not errors.strip():
            findings.append(Finding("silent", f"exit code {code} without a word"))
        if timed_out and not re.search(r"epoch \d+/", printed):
            findings.append(Finding("hang", f"more than {SECONDS:.0f} s"))
        if memory > MEMORY_BYTES:
            findings.append(Finding("memory", f"{memory / 1e9:.1f} GB"))
        if (self.folder / "marker").exists():
            findings.append(Finding("code ran", "the marker is there"))
        if _digest(self.folder / "victim") != self.before:
            findings.append(Finding("write elsewhere", "files of victim/ changed"))
        strange = {path.name for path in self.folder.iterdir()} - EXPECTED
        if strange:
            findings.append(Finding("write elsewhere", f"created {sorted(strange)}"))
        findings += [
            Finding("secret", f"copied to {path}")
            for path in _files_with_secret(self.folder / "here")
        ]
        if re.search(r"\x1b\]|\x07", printed + errors):
            findings.append(Finding("terminal", "an escape sequence was printed"))
        ending = "at work after 30 s" if timed_out else str(code)
        return Outcome(ending, words, list(dict.fromkeys(findings)))


EXPECTED = {"here", "victim", "secret.txt", "marker", "words", "stdout", "stderr", "audit"}
"""Names in the folder of an attempt."""


def _work(make: Make, chance: Random, runs: Path, folder: Path) -> None:
    """Make an attempt in a forked process, which ends here."""
    code = NOT_OURS
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    try:
        os.chdir(folder / "here")
        words = make(chance, folder, runs)
        (folder / "words").write_text(repr(words))
        _limit()
        _watch(folder)
        from vision_lab.cli.main import main

        sys.modules["__main__"].__spec__ = find_spec(
            PROGRAM
        )  # by which Lightning starts further processes
        code = 1
        code = main(words)
    except SystemExit as end:  # of Hydra's parser of flags
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch(folder: Path) -> None:
    """Write down what this process does that no command may do, by Python's audit events."""
    log = os.open(folder / "audit", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    inside = os.path.realpath(folder / "here")

    def note(kind: str, text: str) -> None:
        os.write(log, f"{kind}\t{text[:300]!r}\n".encode(errors="backslashreplace"))

    def is_elsewhere(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a descriptor
        parent, name = os.path.split(os.path.abspath(os.fsdecode(path)))
        real = os.path.join(os.path.realpath(parent), name)
        if real in (os.devnull, f"/proc/{os.getpid()}/clear_refs"):  # the latter resets a peak
            return False
        return not (real == inside or real.startswith(inside + os.sep))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and is_elsewhere(path):
                note("write elsewhere", f"open {path!r}")
        elif event in CHANGES and is_elsewhere(arguments[0]):
            note("write elsewhere", f"{event} {arguments[0]!r}")
        elif event in STARTS:
            program = Path(str(arguments[0])).name
            command = list(arguments[1][:3]) if event == "subprocess.Popen" else []
            is_ours = command == [sys.executable, "-m", PROGRAM]
            if event != "ctypes.dlopen" and program not in ALLOWED_PROGRAMS and not is_ours:
                note("starts a program", f"{event} {arguments[:2]!r}")
            elif event == "ctypes.dlopen" and str(arguments[0]).startswith(inside):
                note("code ran", f"{event} {arguments[:1]!r}")

    sys.addaudithook(hook)


def _digest(folder: Path) -> str:
    digest = blake2b()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def _files_with_secret(folder: Path) -> list[str]:
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if (
                os.path.islink(path)
                or not os.path.isfile(path)
                or os.path.getsize(path) > 2_000_000
            ):
                continue
            with open(path, "rb") as file:
                if SECRET.encode() in file.read():
                    found.append(os.path.relpath(path, folder))
    return found


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _where(text: str) -> str:
    """The place in the package and the message of the last traceback."""
    places = re.findall(r'File "[^"]*/vision_lab/([^"]+)", line (\d+)', text)
    last = [
        line
        for line in text.strip().splitlines()
        if re.match(r"[\w.]+(Error|Exception|Interrupt|Warning)?\b", line)
    ]
    place = ":".join(places[-1]) if places else "?"
    return f"{place} {last[-1][:160] if last else ''}"
