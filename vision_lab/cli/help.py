"""``--help``, built from the YAML files alone, without importing Hydra or torch, in 0.1 s."""

from __future__ import annotations

import difflib
import shutil
import sys
from collections.abc import Sequence
from textwrap import fill

from vision_lab.config.groups import CONFIG_DIR, ConfigOption, find_groups
from vision_lab.config.overrides import CommandLine
from vision_lab.core.errors import ConfigurationError

USAGE = """\
vision_lab: any vision model on any dataset and task, composed from the command line.

  python -m vision_lab                                           train the default configuration
  python -m vision_lab model=resnet50 data=folder data.root=...  another model, your own images
  python -m vision_lab task=segment model=vgg16_bn head=segnet   another task, any backbone and head
  python -m vision_lab -m model=alexnet,vgg11_bn seed=1,2        a sweep: one run per combination
  python -m vision_lab mode=evaluate run=outputs/...             evaluate a run on any split or data
  python -m vision_lab mode=predict run=outputs/... source=...   predict images
"""

PLAIN_KEYS = """\
Plain keys
  name=...       run folder below outputs/; the same command resumes the run or shows its result
  seed=...       seed of initial weights, sample order, augmentation and dropout
  run=...        run folder to evaluate, to predict with, or whose config to start from
  resume=...     folder of an interrupted run to continue with its own config
  force=true     train again although the run exists; the old folder is kept
  extend=true    train the run longer, by a larger trainer.max_epochs
  trust=[...]    packages that the config of a run folder may import
  source=...     images to predict: a file, a folder or a glob

  --help GROUP    options of one group                --cfg job     composed config; add --resolve
  -m              sweep over comma-separated values   --config-dir  a folder with your own configs
  --hydra-help    Hydra's flags                       --shell-completion install=bash|zsh|fish
"""

MAX_DETAILED_OPTIONS = 20
"""Groups with more options are listed without the keys of each option."""


def format_help(words: Sequence[str]) -> str:
    """Return the help that a command line requests.

    Args:
        words: the words of the command line, with ``--help`` or ``-h`` and names of groups.

    Raises:
        ConfigurationError: if there is no such group.
    """
    command = CommandLine.parse(words)
    groups = find_groups(command.config_folders)
    requested = [word.partition("=")[0] for word in command.overrides]
    if not requested:
        overviews = [_format_group(group, options) for group, options in groups.items()]
        return "\n".join([USAGE, *overviews, PLAIN_KEYS])
    for name in requested:
        if name not in groups:
            near = difflib.get_close_matches(name, groups, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigurationError(
                f"there is no group {name}.{hint} The groups are {', '.join(groups)}."
            )
    return "\n".join(_format_details(name, groups[name]) for name in requested)


def _format_group(group: str, options: Sequence[ConfigOption]) -> str:
    """Return the name of a group and a line for each option."""
    default = _default_options().get(group)
    title = _bold(group) + (f"  (default: {default})" if default else "")
    width = max(len(option.name) for option in options)
    return "\n".join([title, *(_format_option(option, width) for option in options), ""])


def _format_details(group: str, options: Sequence[ConfigOption]) -> str:
    """Return the options of a group with their keys and defaults."""
    import yaml  # not imported for the overview, where it would take a fifth of the time

    lines = [_format_group(group, options)]
    shared = sorted(
        (CONFIG_DIR / group).glob("_*.yaml"), key=lambda file: (file.stem != f"_{group}", file)
    )
    for file in shared:
        text = file.read_text(encoding="utf-8")
        based = [option.name for option in options if text in option.texts()]
        owner = f"every {group}" if len(based) == len(options) else f"{group}={', '.join(based)}"
        title = fill(f"Keys of {owner}, and their defaults", 100, subsequent_indent="  ")
        lines += [title, *_format_shared_keys(text), ""]
    for option in options if len(options) <= MAX_DETAILED_OPTIONS else ():
        content = yaml.safe_load(option.file.read_text(encoding="utf-8")) or {}
        for key in ("defaults", "_target_", "_partial_"):
            content.pop(key, None)
        if content:
            text = yaml.safe_dump(
                content,
                sort_keys=False,
                default_flow_style=None,
                width=100,
            )
            lines.append(_bold(f"{group}={option.name}"))
            lines += [*(f"  {line}" for line in text.splitlines()), ""]
    lines.append(f"Files: {CONFIG_DIR / group}")
    return "\n".join(lines)


def _format_shared_keys(text: str) -> list[str]:
    """Return the lines of a file of shared defaults, whose comments explain its keys."""
    skipped = ("_target_", "_partial_", "_convert_", "# @package", "defaults:")
    lines = []
    for line in text.splitlines():
        if not line.startswith(skipped):
            lines.append("  " + line)
    return lines


def _default_options() -> dict[str, str]:
    """Return the default option by group, read from config.yaml."""
    defaults = {}
    for line in (CONFIG_DIR / "config.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("  - ") and ":" in line:
            group, _, option = line.strip("- ").partition(":")
            defaults[group.strip()] = option.partition("#")[0].strip()
    chosen = {}
    for group, option in defaults.items():
        if option != "null":
            chosen[group] = option
    return chosen


def _format_option(option: ConfigOption, width: int) -> str:
    columns = min(shutil.get_terminal_size((100, 24)).columns, 140)
    indent = f"  {option.name:<{width}}  "
    return fill(option.summary, columns, initial_indent=indent, subsequent_indent=" " * len(indent))


def _bold(text: str) -> str:
    if sys.stdout.isatty():
        return f"\033[1m{text}\033[0m"
    return text
