"""What ``${...}`` in ``conf/`` may call. No torch here: ``--cfg job --resolve`` shows the whole truth in a second."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from vision_lab.data import folder, scene_classes, voc_xml, yolo_txt
from vision_lab.replay import SAVED
from vision_lab.runs import folder_name, run_folder, sweep_folder
from vision_lab.types import DataError

DATA = Path(__file__).parent / "data"


def register(saved_choices: Mapping[str, str | None]) -> None:
    """Make the resolvers known to OmegaConf.

    Args:
        saved_choices: group: choice of the run that ``run=`` names, for groups the command line leaves to it.
    """

    def choice(group: str) -> str | None:
        from hydra.core.hydra_config import HydraConfig

        chosen = HydraConfig.get().runtime.choices.get(group)
        return saved_choices.get(group) if chosen == SAVED else chosen

    resolvers: dict[str, Callable[..., Any]] = {
        "choice": choice,
        "count": len,
        "times": lambda factor, value: factor * value,
        "folder_classes": _listed(_folder_classes),
        "one_of": lambda options, wanted: wanted if wanted in options else options[0],
        "scene_classes": _listed(
            lambda classes, target: scene_classes.class_names(classes, background=target == "masks")
        ),
        "coco_classes": _listed(lambda root: ["background", *_coco_categories(root)]),
        "coco_categories": _listed(_coco_categories),
        "voc_names": _listed(voc_xml.names),
        "yolo_names": _listed(yolo_txt.names),
        "packaged_lines": _listed(_packaged_lines),
        "run_folder": run_folder,
        "sweep_folder": lambda name, task, now: sweep_folder(
            name, saved_choices.get("task") or task if task == SAVED else task, now
        ),
        "folder_name": folder_name,
        "metric_name": lambda monitor: monitor.rpartition("/")[2],
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def _listed(function: Callable[..., Sequence[str]]) -> Callable[..., ListConfig]:
    """OmegaConf takes a plain list for an answer, but cannot put it into a config that is resolved as a whole."""
    return lambda *arguments: OmegaConf.create(list(function(*arguments)))


@cache
def _folder_classes(root: str, expected: int | None = None) -> Sequence[str]:
    """The class folders of a root; ``expected`` of them, where their names are not those of the classes."""
    names = folder.class_names(root)
    if expected is not None and len(names) != expected:
        raise DataError(
            f"{root} has {len(names)} class folders, not {expected}: for a part of the classes, type data=folder"
        )
    return names


def _coco_categories(root: str) -> Sequence[str]:
    from vision_lab.data import coco  # which needs NumPy and more, a tenth of a second

    return coco.categories(root)


@cache
def _packaged_lines(file: str) -> Sequence[str]:
    return (DATA / file).read_text(encoding="utf-8").splitlines()
