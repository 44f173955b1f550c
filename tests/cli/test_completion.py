"""Completion in the shell, asked directly and in a real bash."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vision_lab.cli.completion import complete
from vision_lab.cli.main import main

BASH = shutil.which("bash")


@pytest.mark.parametrize(
    ("word", "line", "expected"),
    [
        ("mod", (), ["model=", "mode="]),
        (
            "model=resnet1",
            (),
            ["model=resnet18", "model=resnet101", "model=resnet110", "model=resnet152"],
        ),
        ("model=vgg11,vgg16", (), ["model=vgg11,vgg16", "model=vgg11,vgg16_bn"]),
        ("se", (), ["search=", "seed=", "seeds="]),
        ("optimizer.we", ("optimizer=adamw",), ["optimizer.weight_decay="]),
        ("data.mask_s", (), ["data.mask_suffix="]),
        ("data.mask_s", ("data=folder",), []),
        ("data.ro", ("data=folder",), ["data.root="]),
        ("--he", (), ["--help"]),
        ("seed=", (), []),
    ],
)
def test_words(word: str, line: tuple[str, ...], expected: list[str]):
    assert complete(word, line) == expected


def test_runs_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/one", "outputs/sweep/job", "outputs/empty", "photos/cats"):
        Path(name).mkdir(parents=True)
    for name in ("outputs/one/config.yaml", "outputs/sweep/job/config.yaml", "photos/a.png"):
        Path(name).touch()
    assert complete("run=") == ["run=outputs/one", "run=outputs/sweep/job"]
    assert complete("resume=outputs/o") == ["resume=outputs/one"]
    assert complete("data.root=ph") == ["data.root=photos/"]
    assert complete("source=photos/") == ["source=photos/a.png", "source=photos/cats/"]
    assert complete("source=none/") == []


def test_options_of_ones_own(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# Mine\n_target_: x\n")
    assert complete("model=mi", ("--config-dir", str(tmp_path))) == ["model=mine"]


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]):
    assert main(["--shell-completion", "install=tcsh"]) == 2
    assert "type --shell-completion install=<one of bash, zsh, fish>" in capsys.readouterr().err


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize("command", ["vision_lab", "python -m vision_lab"])
def test_completion_in_bash(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The function is called as bash calls it, where = separates words."""
    assert main(["--shell-completion", "install=bash"]) == 0
    script = capsys.readouterr().out.replace(
        "vision_lab --shell-completion", f"{sys.executable} -m vision_lab --shell-completion"
    )
    line = f"{command} seed=1 model=densenet12"
    test = (
        f"{script}\ncompopt() {{ :; }}\nCOMP_LINE='{line}' COMP_POINT={len(line)}\n"
        f"_vision_lab_complete {command.split()[0]} densenet12 =\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        [BASH, "-c", test], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["densenet121"]
