"""The environment of a run."""

import subprocess
from pathlib import Path

import pytest
import torch

from vision_lab.run_folders import environment


def test_versions_machine_and_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/vision_lab", "model=resnet18"])
    described, _ = environment.describe_environment()
    assert torch.__version__.startswith(described["versions"]["torch"])
    assert described["command"] == ["vision_lab", "model=resnet18"]
    assert described["cores"] >= 1


def test_commit_and_changes_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = tmp_path / "vision_lab" / "runs" / "environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("one\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(environment, "__file__", str(module))
    described, difference = environment.describe_environment()
    assert len(described["commit"]) == 40
    assert (described["uncommitted"], difference) == (False, "")
    module.write_text("two\n")
    described, difference = environment.describe_environment()
    assert described["uncommitted"]
    assert "-one\n+two" in difference


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "a" / "b" / "environment.py"))
    described, difference = environment.describe_environment()
    assert (described["commit"], difference) == (None, "")


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package",))
    assert environment.describe_environment()[0]["versions"] == {"no-such-package": "not installed"}
