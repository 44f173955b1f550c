"""``--help``, from the files of ``conf/`` alone: neither Hydra nor torch is imported, so it comes in a blink."""

from __future__ import annotations

import difflib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from vision_lab.config.groups import CONFIG_DIR, ConfigOption, config_folders, groups
from vision_lab.core.errors import ConfigurationError

USAGE = """\
vision_lab: any model with any data on any task, composed by a word.

  python -m vision_lab                                          train the default run
  python -m vision_lab model=resnet50 data=folder data.root=... another model, your pictures
  python -m vision_lab task=segment model=vgg16_bn head=segnet  another task: any model with any head of it
  python -m vision_lab -m model=alexnet,vgg11_bn seed=1,2       a sweep: one run for each pair
  python -m vision_lab mode=evaluate run=outputs/...            measure a run again, on any split or data
  python -m vision_lab mode=predict run=outputs/... source=...  say what is in pictures
"""

PLAIN_KEYS = """\
Plain keys
  name=...       the run's folder below outputs/: the same command again shows its result, or goes on with it
  seed=...       decides first weights, order, augmentation, dropout and splits
  run=...        a run to evaluate, to predict with, or whose config to begin with
  resume=...     the folder of an interrupted run, to go on with what it was told
  force=true     train a run anew although it is there; the old folder is kept
  trust=[...]    packages whose code a run's folder from elsewhere may call
  source=...     pictures to predict: a file, a folder, a glob

  --help GROUP    one group, with its options         --cfg job     the composed config; --resolve follows references
  -m              a sweep over all comma lists        --config-dir  a folder of your own configs
  --hydra-help    Hydra's own flags                   --shell-completion install=bash|zsh|fish
"""


def show(words: Sequence[str]) -> str:
    """The help for a command line that asks for it.

    Raises:
        ConfigurationError: where it asks for a group that does not exist.
    """
    found = groups(config_folders(words))
    asked = [
        word.split("=")[0]
        for word in words
        if not word.startswith("-") and word not in _config_dir_words(words)
    ]
    if not asked:
        return "\n".join(
            [USAGE, *(_overview(group, choices) for group, choices in found.items()), PLAIN_KEYS]
        )
    for name in asked:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigurationError(
                f"there is no group {name}.{hint} The groups are {', '.join(found)}."
            )
    return "\n".join(_group_help(name, found[name]) for name in asked)


def _overview(group: str, choices: Sequence[ConfigOption]) -> str:
    """A group of few choices with a sentence each; one of many by its names alone."""
    default = _defaults().get(group)
    head = f"{_bold(group)}{f'  (default: {default})' if default else ''}"
    width = max(len(choice.name) for choice in choices)
    return "\n".join([head, *(_format_option(choice, width) for choice in choices), ""])


def _group_help(group: str, choices: Sequence[ConfigOption]) -> str:
    import yaml  # not needed for the overview, and a fifth of its time

    lines = [_overview(group, choices)]
    for file in sorted((CONFIG_DIR / group).glob("_*.yaml")):
        lines += [
            f"Options of every {group}, and their defaults",
            *_options(file.read_text(encoding="utf-8")),
            "",
        ]
    for choice in choices:
        own = yaml.safe_load(choice.file.read_text(encoding="utf-8")) or {}
        keys = {
            key: value
            for key, value in own.items()
            if key not in ("defaults", "_target_", "_partial_")
        }
        if keys and len(choices) <= 20:
            text = yaml.safe_dump(keys, sort_keys=False, default_flow_style=None, width=100)
            lines += [
                f"{_bold(f'{group}={choice.name}')}",
                *(f"  {line}" for line in text.splitlines()),
                "",
            ]
    lines.append(f"Files: {CONFIG_DIR / group}")
    return "\n".join(lines)


def _options(text: str) -> list[str]:
    """A shared file's own lines: its comments explain its keys."""
    skipped = ("_target_", "_partial_", "_convert_", "# @package")
    return ["  " + line for line in text.splitlines() if not line.startswith(skipped)]


def _defaults() -> dict[str, str]:
    """group: the choice that config.yaml makes."""
    lines = (CONFIG_DIR / "config.yaml").read_text(encoding="utf-8").splitlines()
    pairs = (
        line.strip("- ").split(":") for line in lines if line.startswith("  - ") and ":" in line
    )
    return {
        pair[0].strip(): pair[1].split("#")[0].strip() for pair in pairs if "null" not in pair[1]
    }


def _format_option(choice: ConfigOption, width: int) -> str:
    columns = min(shutil.get_terminal_size((100, 24)).columns, 140)
    return fill(
        choice.summary,
        columns,
        initial_indent=f"  {choice.name:<{width}}  ",
        subsequent_indent=" " * (width + 4),
    )


def _config_dir_words(words: Sequence[str]) -> set[str]:
    return {str(folder) for folder in config_folders(words)} | {
        str(Path(folder)) for folder in config_folders(words)
    }


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text
