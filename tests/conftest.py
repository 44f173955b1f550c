"""Fixtures of all tests: one thread per process, the command line in this process, small images."""

import resource
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import omegaconf.base
import pytest
import torch
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource

from tests.builders import Outcome, make_shades
from vision_lab.cli.main import main
from vision_lab.config import resolvers
from vision_lab.core.spec import DataSpec


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, since two test processes share two cores, and reset what a run has changed."""
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="session")
def _compose_once() -> Iterator[None]:
    """Parse each config file and interpolation once, and compose once per command instead of twice.

    Most of the time of a short command is spent composing. Commands in other processes do all of it.
    """
    files: dict[tuple[str, int, int], Any] = {}
    sources = Plugins.instance().discover(ConfigSource)
    (file_source,) = (source for source in sources if source.scheme() == "file")
    load = file_source.load_config
    get_mode = Hydra.get_mode

    def load_once(self: ConfigSource, config_path: str) -> Any:
        file = Path(self.path, self._normalize_file_name(config_path))
        if not file.is_file():
            return load(self, config_path)
        state = file.stat()
        key = (str(file), state.st_mtime_ns, state.st_size)
        if key not in files:
            files[key] = load(self, config_path)
        return deepcopy(files[key])

    def get_mode_once(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        if any(word.startswith(("hydra.mode", "hydra=")) for word in overrides):
            return get_mode(self, config_name, overrides)
        return None  # the default of hydra.mode, which leaves the decision to --multirun

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_source, "load_config", load_once)
        patch.setattr(Hydra, "get_mode", get_mode_once)
        patch.setattr(omegaconf.base, "parse", cache(omegaconf.base.parse))
        yield


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run ``vision_lab`` with words in an empty folder, in this process."""
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

    def make(
        name: str = "images",
        classes: tuple[str, ...] = ("ash", "beech", "cedar"),
        count: int = 12,
    ) -> Path:
        make_shades(tmp_path / name, classes, count)
        return tmp_path / name

    return make
