"""Commands as functions: what one types after ``python -m vision_lab`` are the arguments."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vision_lab.api.state import preserve_state
from vision_lab.cli import suggestions
from vision_lab.config import resolvers, saved
from vision_lab.config.composition import compose_command, resolve_composed
from vision_lab.config.modes import build_mode
from vision_lab.config.overrides import CommandLine
from vision_lab.config.resolution import Config
from vision_lab.core import signals
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.failures import explain_failure
from vision_lab.modes import finished

_running = threading.Lock()
"""Held by the one command that runs in this process."""


def compose(*overrides: str) -> Config:
    """Compose and resolve a config, without building or running anything.

    Args:
        overrides: words of the command line, such as ``"model=resnet18"``.

    Returns:
        The config; ``config["model"]`` is a group as plain values.

    Raises:
        ConfigurationError: if a word is invalid.
    """
    with preserve_state():
        return compose_words(overrides)[0]


def compose_words(overrides: Sequence[str]) -> tuple[Config, Path]:
    """Compose the config of a command, and leave Hydra's part of it as the current one.

    Args:
        overrides: words of the command line.

    Returns:
        The config and the output folder.

    Raises:
        ConfigurationError: if a word is invalid.
    """
    command = CommandLine.parse(overrides)
    if command.flags or command.is_sweep:
        raise ConfigurationError(
            f"{' '.join(command.flags) or 'several values'}: flags and sweeps are for the command "
            "line: call once for each run"
        )
    errors = suggestions.find_command_errors(command)
    if errors:
        raise ConfigurationError("\n".join(errors))
    try:
        command, saved_run = saved.add_saved_config(command)
        resolvers.register_resolvers(saved_run)
        composed = compose_command(command)
        return resolve_composed(composed), Path(HydraConfig.get().run.dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(suggestions.explain_error(command, error)) from error


def run(
    overrides: Sequence[str],
    *,
    check: Callable[[Config], None] | None = None,
) -> Path:
    """Run a command in this process, as the command line does.

    Args:
        overrides: words of the command line.
        check: raises an error if the config is not for Python.

    Returns:
        The output folder.

    Raises:
        UserError: what the command line would print.
        KeyboardInterrupt: if the user interrupts it; the same call resumes a training.
    """
    with _only_command(), preserve_state():
        config, folder = compose_words(overrides)
        if check is not None:
            check(config)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with signals.signals_as_interrupt():
                if finished.show_if_finished(config, folder) is None:
                    build_mode(config)(config, folder)
        except signals.Interrupted:
            raise KeyboardInterrupt(f"to resume {folder}, repeat the call") from None
        except Exception as error:
            _raise_explained(error, folder)
        finally:
            if folder.is_dir() and not any(folder.iterdir()):  # the command was refused
                folder.rmdir()
        return folder


def _raise_explained(error: Exception, folder: Path) -> None:
    explained = explain_failure(error, folder)
    if explained is None or explained is error:
        raise error
    raise explained from error


def single_device(overrides: Sequence[str]) -> list[str]:
    """Return the words with ``trainer.devices=1`` if nothing else is typed and there are several.

    Several devices need a process each, which only the command line starts.

    Args:
        overrides: words of the command line.
    """
    is_typed = any(word.lstrip("+").startswith("trainer") for word in overrides)
    if is_typed or torch.cuda.device_count() < 2:
        return list(overrides)
    return [*overrides, "trainer.devices=1"]


def check_single_process(config: Config) -> None:
    """Check that a training needs one process only.

    Raises:
        ConfigurationError: if it needs several.
    """
    settings: dict[str, Any] = config["trainer"]
    if settings.get("devices") not in (1, "1", "auto", None) or settings.get("num_nodes", 1) != 1:
        raise ConfigurationError(
            f"trainer.devices={settings['devices']}: several devices need a process each: train "
            "from the command line, python -m vision_lab, or type trainer.devices=1"
        )


@contextmanager
def _only_command() -> Iterator[None]:
    """Refuse a second command in another thread: both would share random numbers and Hydra.

    Raises:
        ConfigurationError: if a command is running.
    """
    if not _running.acquire(blocking=False):
        raise ConfigurationError(
            "another run is active in this process, and runs in threads would mix their random "
            "numbers: wait for it, or start this one in a process of its own"
        )
    try:
        yield
    finally:
        _running.release()
