"""``run=`` and ``resume=``: the config a run was made with is the starting point, whatever ``conf/`` says today.

Each group of the saved config is put into Hydra's store as the choice ``_saved`` and chosen, unless the command line
chooses another; so a group that is named is composed afresh and replaces its whole node, and dotted keys come last.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore

from vision_lab.choices import groups
from vision_lab.command_line import overrides, value_of
from vision_lab.runs import Run
from vision_lab.types import ConfigurationError

SAVED = "_saved"

OWN = ("name", "run", "resume", "force", "trust", "source", "mode", "hydra", "debug")
"""What a command says for itself and never takes from the run."""


def with_saved(words: Sequence[str], folders: Sequence[Any]) -> tuple[list[str], dict[str, str | None]]:
    """The command line with the run's own config underneath, and the choices the run was made with.

    Raises:
        ConfigurationError: where ``run=`` or ``resume=`` names no run, or several.
    """
    path, going_on = value_of(words, "run"), value_of(words, "resume")
    if path and going_on:
        raise ConfigurationError("type run=, to begin with what a run was told, or resume=, to go on with it; not both")
    path = path or going_on
    if path is None:
        return list(words), {}
    if "'," in path:
        raise ConfigurationError(f"{'resume' if going_on else 'run'}= takes one run at a time")
    run = Run.existing(path, key="resume" if going_on else "run")
    saved = run.config
    known = groups(folders)
    # Hydra would read a string as YAML, and follow a list of defaults wherever it leads.
    strange = [key for key, node in saved.items() if key in known and not isinstance(node, dict | None)]
    strange += [key for key, node in saved.items() if isinstance(node, dict) and "defaults" in node]
    if strange or "defaults" in saved:
        raise ConfigurationError(f"{run.folder / 'config.yaml'} is not a composed config: {', '.join(strange)}")
    if not going_on:
        # The data may be absent where the run is looked at again: its classes were read when the run was made.
        saved["data"]["spec"] = run.spec
    named = {word.split("=")[0].lstrip("+") for word in overrides(words)}
    store = ConfigStore.instance()
    chosen = []
    for group in known:
        if group in saved and group not in OWN:
            store.store(group=group, name=SAVED, node=saved.pop(group))
            chosen += [] if group in named else [f"{group}={SAVED}"]
    rest = {key: value for key, value in saved.items() if key not in OWN}
    store.store(group="replay", name=SAVED, node=rest, package="_global_")
    if f"+replay={SAVED}" in words:  # a further process of the same run, started with the words of the first
        return list(words), run.choices
    return [*chosen, f"+replay={SAVED}", *words], run.choices
