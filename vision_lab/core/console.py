"""What a command prints: lines, warnings, and silence of the libraries below it."""

from __future__ import annotations

import logging
import warnings

from rich import get_console
from rich.text import Text

from vision_lab.core.text import display_text

IGNORED_WARNINGS = {
    r".*isinstance\(treespec, LeafSpec\).*": "Lightning 2.6 calls an old function of torch's; ours to wait for",
    r"The image decoding and encoding capabilities of TorchVision are deprecated": "bounded in pyproject.toml",
    r".*module\(s\) in eval mode at the start of training.*": "that is what model.freeze asks for",
    r".*It is recommended to use `self.log\(.*sync_dist=True\)`.*": "what is logged was computed over all processes",
    r".*does not have many workers.*": "data.num_workers is chosen by the data's config, which knows better",
    r".*Checkpoint directory .* exists and is not empty.*": "the folder is the run's own",
    r".*resuming from a checkpoint that ended before the epoch ended.*": "our order of samples goes on where it was",
    r"Using padding='same' with even kernel lengths.*": "a dilated ConvNeXt needs it; the copy is small",
    r".*max_unpooling2d_forward_out does not have a deterministic.*": "SegNet's places are distinct: any order will do",
    r".*custom batch sampler `Order` for prediction.*": "it yields each sample once",
    r".*number of training batches \(\d+\) is smaller than the logging interval.*": "debug runs are meant to be short",
}
"""message: why it is left out."""


def silence_libraries() -> None:
    """Leave out what libraries say at every start and nobody can act on; their other warnings stay."""
    # Which accelerators there are not, and advertisements; a table of measures for each class after each epoch.
    for library in ("pytorch_lightning", "faster_coco_eval"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_make_harmless)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def _make_harmless(record: logging.LogRecord) -> bool:
    """Show names of files and classes in a line of the log as ``display_text`` does."""
    record.msg, record.args = display_text(record.getMessage()), ()
    return True


def print_line(text: str) -> None:
    """A line, as it is."""
    get_console().print(Text(display_text(text)), highlight=False, soft_wrap=True)


def print_warning(text: str) -> None:
    """A line that should not be overlooked."""
    line = Text.assemble(("warning:", "yellow"), f" {display_text(text)}")
    get_console().print(line, highlight=False, soft_wrap=True)
