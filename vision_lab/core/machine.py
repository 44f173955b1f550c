"""The memory and cores of this machine. Does not import torch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def memory_bytes() -> int | None:
    """Return the physical memory in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory_bytes() -> int | None:
    """Return the peak memory of this process in bytes; None if the system does not report it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        # ru_maxrss would contain that of the process that has started this one.
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
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
