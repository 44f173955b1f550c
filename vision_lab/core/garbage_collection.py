"""Python's garbage collector while modules are imported. Does not import torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the garbage collector while the modules of a command are imported.

    They create a million objects that live as long as the process, and that the collector would
    examine again and again: a seventh of the seconds before a run starts. Afterwards it leaves them
    out for good, so that collections do not interrupt training for 0.2 s each, and do not write to
    memory that workers share. Once torch is imported nothing is paused: what an earlier run of the
    process has left behind must be collected.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
