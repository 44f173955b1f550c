"""``mode=diff runs=[a,b]``: what differs between two runs, and when their curves part.

Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vision_lab.compare.difference import RunDifference, compare_two
from vision_lab.compare.runs import find_runs, list_patterns
from vision_lab.config.resolution import Config
from vision_lab.core import console
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import format_path, write_json
from vision_lab.core.text import shorten_middle

MAX_VALUE_LENGTH = 60
"""Maximum number of characters of a printed value."""


def diff(config: Config, folder: Path) -> None:
    """Print what differs between two runs, and write ``diff.json``.

    Args:
        config: the config; ``runs`` are the two runs.
        folder: the folder to write to.

    Raises:
        ConfigurationError: if these are not two runs, or a file cannot be read.
    """
    runs = find_runs(list_patterns(config["runs"]))
    if len(runs) != 2:
        raise ConfigurationError(f"runs= contains {len(runs)} runs: type runs=[<run>,<other run>]")
    difference = compare_two(*runs)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder, "diff.json", {"runs": list(map(str, runs)), **asdict(difference)})
    console.print_line(f"- {runs[0]}")
    console.print_line(f"+ {runs[1]}")
    _print(difference)
    console.print_line(f"written to {format_path(folder)}")


def _print(difference: RunDifference) -> None:
    sections = {
        "config": difference.config,
        "data": difference.data,
        "code and versions": difference.environment,
    }
    for title, values in sections.items():
        if not values:
            console.print_line(f"{title}: equal")
        _print_values(title, values)
    if difference.epoch is not None:
        _print_values(f"curves part in epoch {difference.epoch}", difference.metrics)
    elif difference.epochs:
        console.print_line(f"curves: equal over {difference.epochs} epochs")
    else:
        console.print_line("curves: no epoch that both runs have")


def _print_values(title: str, values: Mapping[str, tuple[Any, Any]]) -> None:
    if values:
        console.print_line(f"{title}:")
    for key, (first, second) in values.items():
        shown = [shorten_middle(str(value), MAX_VALUE_LENGTH) for value in (first, second)]
        if shown[0] == shown[1]:  # texts that differ in the middle
            shown = ["one text", "another text"]
        console.print_line(f"  {key}: {shown[0]} -> {shown[1]}")
