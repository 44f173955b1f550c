"""What this machine has, for limits that are said before work begins. No torch here."""

from __future__ import annotations

import os


def memory_bytes() -> int | None:
    """Return the memory of this machine in bytes, or None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def core_count() -> int:
    """Return how many cores there are."""
    return os.cpu_count() or 1
