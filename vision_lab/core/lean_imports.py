"""Imports of a library without the optional packages it would import. Does not import torch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError
from types import ModuleType
from typing import Any


def import_without(library: str, *, optional: Sequence[str], first: Sequence[str] = ()) -> None:
    """Hide optional packages from a library when it is imported, if it is.

    torchmetrics imports SciPy and matplotlib where they are installed, for metrics of audio and for
    plots of its own: a fifth of the seconds before a run starts. This is for processes that run a
    command only, since the library's functions that need these packages will report them missing.

    Args:
        library: name of the library; nothing happens if it was imported before.
        optional: the packages to hide.
        first: packages to import before, from which nothing is hidden.
    """
    is_registered = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if library not in sys.modules and not is_registered:
        sys.meta_path.insert(0, _Finder(library, optional, first))


class _Finder(MetaPathFinder):
    """Finds the library once, and has it loaded without the optional packages."""

    def __init__(self, library: str, optional: Sequence[str], first: Sequence[str]) -> None:
        self.library = library
        self.optional = optional
        self.first = first

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != self.library:
            return None
        sys.meta_path.remove(self)
        for package in self.first:
            importlib.import_module(package)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.optional)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, optional: Sequence[str]) -> None:
        self.loader = loader
        self.optional = optional

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        assert module.__spec__ is not None
        module.__spec__.loader = self.loader
        with _hide(self.optional):
            self.loader.exec_module(module)


@contextmanager
def _hide(packages: Sequence[str]) -> Iterator[None]:
    """Let packages that are not imported yet appear as not installed, to Lightning's libraries."""
    imports: Any = importlib.import_module("lightning_utilities.core.imports")
    hidden = [name for name in packages if name not in sys.modules]
    find_version = imports._version

    def find_visible_version(name: str) -> Any:
        if name in hidden:
            raise PackageNotFoundError(name)
        return find_version(name)

    imports.package_available.cache_clear()
    imports.module_available.cache_clear()
    imports._version = find_visible_version
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        imports._version = find_version
        imports.package_available.cache_clear()
        imports.module_available.cache_clear()
