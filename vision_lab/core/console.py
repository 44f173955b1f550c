"""Lines and warnings printed by a command, and silencing of the libraries' own output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import get_console, progress
from rich.text import Text

from vision_lab.core.text import display_text

IGNORED_WARNINGS = (
    # Lightning 2.6 calls a deprecated function of torch.
    r".*isinstance\(treespec, LeafSpec\).*",
    # The torchvision version has an upper bound in pyproject.toml.
    r"The image decoding and encoding capabilities of TorchVision are deprecated",
    # Frozen modules are in eval mode: that is the purpose of model.freeze.
    r".*module\(s\) in eval mode at the start of training.*",
    # Metrics are computed over all processes before they are logged.
    r".*It is recommended to use `self.log\(.*sync_dist=True\)`.*",
    # data.num_workers is set in the config of each dataset.
    r".*does not have many workers.*",
    # The checkpoint directory is the run's own folder.
    r".*Checkpoint directory .* exists and is not empty.*",
    # The sampler resumes within the epoch.
    r".*resuming from a checkpoint that ended before the epoch ended.*",
    # A dilated ConvNeXt pads its even kernels; the copy of the input is small.
    r"Using padding='same' with even kernel lengths.*",
    # SegNet's pooling indices are distinct, so the result does not depend on their order.
    r".*max_unpooling2d_forward_out does not have a deterministic.*",
    # The sampler yields each sample once.
    r".*custom batch sampler `EpochBatchSampler` for prediction.*",
    # A detector that is fitted in rounds needs none.
    r".*this fit will run with no optimizer.*",
    # Debug runs have few batches.
    r".*number of training batches \(\d+\) is smaller than the logging interval.*",
)
"""Regular expressions of warnings that the user cannot act on."""


T = TypeVar("T")

SILENCED_LIBRARIES = (
    "pytorch_lightning",  # lists absent accelerators
    "faster_coco_eval",  # prints a table after each epoch
    "aiobotocore",  # says where it has found credentials
)


def silence_libraries() -> None:
    """Hide messages that libraries print at every start and the user cannot act on."""
    for library in SILENCED_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_escape_record)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def _escape_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = display_text(record.getMessage()), ()
    return True


def print_line(text: str) -> None:
    """Print a line without markup or highlighting."""
    get_console().print(Text(display_text(text)), highlight=False, soft_wrap=True)


def track(items: Iterable[T], title: str, *, total: int) -> Iterator[T]:
    """Yield items, and show a progress bar in a terminal.

    Args:
        items: the items.
        title: text before the bar.
        total: number of items.
    """
    console = get_console()
    yield from progress.track(
        items,
        title,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,  # it would print an empty line
    )


def print_warning(text: str) -> None:
    """Print a line that begins with a yellow ``warning:``."""
    line = Text.assemble(("warning:", "yellow"), f" {display_text(text)}")
    get_console().print(line, highlight=False, soft_wrap=True)
