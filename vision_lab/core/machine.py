"""The memory and cores of this machine. Does not import torch."""

from __future__ import annotations

import math
import os
import subprocess
from contextlib import suppress
from pathlib import Path

from vision_lab.core.files import expand_home

CGROUP = Path("/sys/fs/cgroup")

CACHE_VARIABLE = "VISION_LAB_CACHE"
"""Variable with the folder of caches: a setting of the user, which no config may change."""


def cache_folder() -> Path:
    """Return ``VISION_LAB_CACHE``, or ``vision_lab`` in the user's folder of caches."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return expand_home(folder)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "vision_lab"


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


def reset_peak_memory() -> None:
    """Let ``peak_memory_bytes`` forget what the process has used before."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def core_count() -> int:
    """Return the number of CPU cores."""
    return os.cpu_count() or 1


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    A container or a job of a cluster may be limited to some of them, or to a share of their time.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else core_count()
    share = _cgroup_cores()
    return max(1, min(cores, math.ceil(share))) if share is not None else cores


def _cgroup_cores() -> float | None:
    """Return the processor time per second that the control group allows; None if unlimited."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no version 2; or "max", no limit
        pass
    try:
        quota = (CGROUP / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii")
        period = (CGROUP / "cpu/cpu.cfs_period_us").read_text(encoding="ascii")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


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
