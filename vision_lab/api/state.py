"""State of the process, which a call from Python leaves as it was."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vision_lab.config.saved import SAVED_OPTION
from vision_lab.core.console import SILENCED_LIBRARIES


@contextmanager
def preserve_state() -> Iterator[None]:
    """Restore what a run changes for its process: Hydra, signals, random numbers, settings."""
    with (
        _preserve_python(),
        _preserve_signals(),
        _preserve_hydra(),
        _preserve_random_numbers(),
        warnings.catch_warnings(),
    ):
        yield


@contextmanager
def _preserve_python() -> Iterator[None]:
    arguments, path, environment = list(sys.argv), list(sys.path), dict(os.environ)
    levels = {name: logging.getLogger(name).level for name in SILENCED_LIBRARIES}
    filters = {handler: list(handler.filters) for handler in logging.getLogger().handlers}
    try:
        yield
    finally:
        sys.argv[:], sys.path[:] = arguments, path
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for handler, before in filters.items():
            handler.filters[:] = before


@contextmanager
def _preserve_signals() -> Iterator[None]:
    is_main = threading.current_thread() is threading.main_thread()  # only it may set handlers
    numbers = (signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)]))
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if is_main:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _preserve_hydra() -> Iterator[None]:
    composed, initialized = HydraConfig.instance().cfg, GlobalHydra.instance().hydra
    try:
        yield
    finally:
        HydraConfig.instance().cfg = composed
        GlobalHydra.instance().hydra = initialized
        for options in ConfigStore.instance().repo.values():
            if isinstance(options, dict):
                options.pop(f"{SAVED_OPTION}.yaml", None)


@contextmanager
def _preserve_random_numbers() -> Iterator[None]:
    python, numpy_state = random.getstate(), np.random.get_state()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills_memory = memory.fill_uninitialized_memory
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.use_deterministic_algorithms(is_deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = fills_memory
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        torch.set_num_threads(threads)
