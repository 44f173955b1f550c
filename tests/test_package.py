"""A wheel contains everything that it needs, and runs from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_contains_configs_data_and_licenses(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {
        f"vision_lab/conf/{path.relative_to(ROOT / 'conf')}"
        for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert len(configs) > 90
    assert configs <= names
    assert "vision_lab/data/bundled/fashion_mini.npz" in names
    assert "vision_lab/data/bundled/imagenet_classes.txt" in names
    assert "vision_lab/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(
        name.endswith("licenses/vision_lab/data/bundled/fashion_mini.LICENSE") for name in names
    )
    assert not any(name.startswith(("conf/", "tests/")) for name in names)
    assert "vision_lab/models/fashion_features.pth" in names


@pytest.mark.slow
def test_installed_elsewhere_it_runs_from_any_folder(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    (tmp_path / "work").mkdir()

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "vision_lab", *words],
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(tmp_path / "site" / "vision_lab" / "conf") in run("--help", "model")
    assert "written to outputs/wheel" in run("debug=fast", "name=wheel", "trainer=cpu")
    assert (tmp_path / "work" / "outputs" / "wheel" / "result.json").is_file()
