"""Completion of words in the shell, for ``vision_lab`` and ``python -m vision_lab``.

Neither Hydra nor torch is imported: the answer takes a tenth of a second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from vision_lab.config.groups import CONFIG_DIR, ConfigOption, find_groups, find_path_keys
from vision_lab.config.ranges import PLAIN_KEYS
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import expand_home

FLAG = "--shell-completion"

RUN_KEYS = ("run", "runs", "resume")
"""Keys whose values are run folders."""

FLAGS = ("--help", "--cfg", "--resolve", "--config-dir", "--multirun", "-m")

OUTPUT_FOLDER = "outputs"

SCRIPTS = {
    "bash": r"""
_vision_lab_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##* }"
    if [[ "$1" == python* && ! "$COMP_LINE" =~ ^[^\ ]+\ +-m\ +vision_lab ]]; then
        COMPREPLY=($(compgen -f -- "$2")); return
    fi
    mapfile -t COMPREPLY < <(%(command)s --shell-completion query "$word" "$line" 2>/dev/null)
    [[ "$word" == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
    [[ "${COMPREPLY[0]}" == *[=/,.] ]] && compopt -o nospace
}
complete -o default -F _vision_lab_complete vision_lab python python3
""",
    "zsh": r"""
_vision_lab_complete() {
    local -a found
    [[ "$words[1]" == python* && "$words[2] $words[3]" != "-m vision_lab" ]] && { _files; return }
    found=("${(@f)$(%(command)s --shell-completion query "$PREFIX" "$words" 2>/dev/null)}")
    compadd -Q -S '' -- $found
}
compdef _vision_lab_complete vision_lab python python3
""",
    "fish": r"""
function __vision_lab_complete
    %(command)s --shell-completion query (commandline -ct) (commandline -cp) 2>/dev/null
end
function __vision_lab_is_module
    string match -qr -- '^\S+ +-m +vision_lab' (commandline -cp)
end
complete -c vision_lab -f -a '(__vision_lab_complete)'
complete -c python -n __vision_lab_is_module -f -a '(__vision_lab_complete)'
complete -c python3 -n __vision_lab_is_module -f -a '(__vision_lab_complete)'
""",
}


def answer(words: Sequence[str]) -> str:
    """Answer the words after ``--shell-completion``.

    Args:
        words: ``install=bash`` (or zsh, fish) for the script to source; or ``query``, the word to
            complete and the line before the cursor.

    Returns:
        The script, or a completion in each line.

    Raises:
        ConfigurationError: if the shell is not supported.
    """
    if words[:1] == ["query"] and len(words) == 3:
        return "".join(f"{candidate}\n" for candidate in complete(words[1], words[2].split()))
    shell = words[0].removeprefix("install=") if words else ""
    if shell not in SCRIPTS:
        raise ConfigurationError(
            f"{FLAG} {' '.join(words)}: type {FLAG} install=<one of {', '.join(SCRIPTS)}>, as in "
            f'eval "$(vision_lab {FLAG} install=bash)"'
        )
    return SCRIPTS[shell].replace("%(command)s", "vision_lab").lstrip()


def complete(word: str, line: Sequence[str] = ()) -> list[str]:
    """Complete a word.

    Args:
        word: the word as far as it is typed.
        line: the words before the cursor, which may choose options and add a config folder.
    """
    folders = [CONFIG_DIR]
    for flag, folder in pairwise(line):
        if flag in ("--config-dir", "-cd"):
            folders.append(Path(folder))
    groups = find_groups(folders)
    key, equals, value = word.partition("=")
    if equals:
        listed, comma, last = value.rpartition(",")
        values = _values(key, last, groups, tuple(folders))
        candidates = [f"{key}={listed}{comma}{each}" for each in values]
    else:
        candidates = [*FLAGS, *(f"{name}=" for name in (*groups, *PLAIN_KEYS))]
        if "." in word:
            candidates = [f"{name}=" for name in _keys(word.partition(".")[0], line, groups)]
    return [candidate for candidate in dict.fromkeys(candidates) if candidate.startswith(word)]


def _values(
    key: str,
    start: str,
    groups: dict[str, list[ConfigOption]],
    folders: tuple[Path, ...],
) -> list[str]:
    if key in groups:
        return [option.name for option in groups[key]]
    if key in RUN_KEYS and not start.startswith(("/", "~", ".")):
        return sorted(_run_folders())
    if key in find_path_keys(folders):
        return _paths(start)
    return []


def _run_folders() -> Iterator[str]:
    for pattern in ("*/config.yaml", "*/*/config.yaml"):
        for file in Path(OUTPUT_FOLDER).glob(pattern):
            yield str(file.parent)


def _paths(start: str) -> list[str]:
    folder, _, _ = start.rpartition("/")
    prefix = f"{folder}/" if "/" in start else ""
    try:
        base = expand_home(prefix)
    except ConfigurationError:  # of a user who does not exist
        return []
    if not base.is_dir():
        return []
    paths = []
    with os.scandir(base) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                paths.append(f"{prefix}{entry.name}{'/' if entry.is_dir() else ''}")
    return sorted(paths)


def _keys(
    group: str,
    line: Sequence[str],
    groups: dict[str, list[ConfigOption]],
) -> list[str]:
    """Return the dotted keys of the option of a group that the line chooses, or of all."""
    options = groups.get(group, [])
    chosen = [word.partition("=")[2] for word in line if word.startswith(f"{group}=")]
    if chosen:
        options = [option for option in options if option.name in chosen[-1].split(",")]
    keys: list[str] = []
    for option in options:
        for text in option.texts():
            names = re.findall(r"^([a-z]\w*):", text, re.MULTILINE)
            keys += [f"{group}.{name}" for name in names if name != "defaults"]
    return keys
