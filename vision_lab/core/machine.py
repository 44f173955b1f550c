"""The memory and cores of this machine. Does not import torch."""

from __future__ import annotations

import os


def memory_bytes() -> int | None:
    """Return the physical memory in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def core_count() -> int:
    """Return the number of CPU cores."""
    return os.cpu_count() or 1
