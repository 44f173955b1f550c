"""Fixtures of all tests: one thread per process, the command line in this process, small images.

torch is imported within fixtures: the process that distributes the tests does not need it.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hydra.core.hydra_config import HydraConfig

from tests.composition import compose_once
from vision_lab.cli.main import main
from vision_lab.config import resolvers
from vision_lab.core.spec import DataSpec

if TYPE_CHECKING:
    from tests.builders import Outcome


def pytest_collection_finish() -> None:
    """Exclude what imports have created from garbage collection: a twentieth of the tests' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, since two test processes share two cores, and reset what a run has changed."""
    import torch

    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="session")
def _environment_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use an empty folder as the user's config, and one thread, in subprocesses too."""
    import torch

    torch.set_num_threads(1)  # fixtures of modules run before those of their first test
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("OMP_NUM_THREADS", "1")  # of runs, too: two test processes share two cores
        yield


@pytest.fixture(autouse=True, scope="session")
def _compose_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        compose_once(patch)
        yield


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run ``vision_lab`` with words in an empty folder, in this process."""
    from tests.builders import Outcome

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["vision_lab"])
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def hydra_resolvers() -> Iterator[None]:
    """Register the resolvers, and forget the config that Hydra keeps."""
    resolvers.register_resolvers()
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def small_files() -> Iterator[None]:
    """Limit files to 10,000 bytes, like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def spec() -> DataSpec:
    """A spec of small color images in four classes."""
    return DataSpec(
        target_type="labels",
        class_names=("ash", "beech", "cedar", "date"),
        num_classes=4,
        image_size=(32, 32),
        channels=3,
        mean=(0.5,),
        std=(0.25,),
    )


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write folders of ``make_shades`` below the test's own folder."""
    from tests.builders import make_shades

    def make(
        name: str = "images",
        classes: tuple[str, ...] = ("ash", "beech", "cedar"),
        count: int = 12,
    ) -> Path:
        make_shades(tmp_path / name, classes, count)
        return tmp_path / name

    return make
