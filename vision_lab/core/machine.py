"""The memory and cores of this machine. Does not import torch."""

from __future__ import annotations

import os
import subprocess


def memory_bytes() -> int | None:
    """Return the physical memory in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def core_count() -> int:
    """Return the number of CPU cores."""
    return os.cpu_count() or 1


def gpu_names() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as for ``CUDA_VISIBLE_DEVICES``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(index) for index, _ in enumerate(listed.stdout.splitlines())]
