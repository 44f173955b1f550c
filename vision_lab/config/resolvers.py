"""What ``${...}`` in ``conf/`` may call. No torch here: ``--cfg job --resolve`` shows the whole truth in a second."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vision_lab.config.resolution import FileStrings
from vision_lab.config.saved import SAVED_OPTION, SavedRun
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.data.bundled import scene_classes
from vision_lab.data.formats import image_folder, voc_xml, yolo_txt
from vision_lab.runs.naming import run_folder, safe_dir_name, sweep_folder

DATA = Path(__file__).parents[1] / "data" / "bundled"


def register(saved: SavedRun | None = None) -> None:
    """Make the resolvers known to OmegaConf.

    Args:
        saved: what the run that ``run=`` names adds to the command.
    """
    run = saved or SavedRun()

    def choice(group: str) -> str | None:
        from hydra.core.hydra_config import HydraConfig

        chosen = HydraConfig.get().runtime.choices.get(group)
        return run.choices.get(group) if chosen == SAVED_OPTION else chosen

    coco_categories = cache(
        _coco_categories
    )  # for this command: in the next one the file may be another
    resolvers: dict[str, Callable[..., Any]] = {
        "choice": choice,
        "count": len,
        "times": _multiply,
        "folder_classes": _from_files(_folder_classes),
        "one_of": lambda options, wanted: wanted if wanted in options else options[0],
        "scene_classes": lambda classes, target: FileStrings(
            scene_classes.class_names(classes, background=target == "masks")
        ),
        "coco_classes": _from_files(lambda root: ["background", *coco_categories(root)]),
        "coco_categories": _from_files(coco_categories),
        "voc_names": _from_files(voc_xml.class_names),
        "yolo_names": _from_files(yolo_txt.class_names),
        "packaged_lines": _from_files(_packaged_lines),
        "saved_class_names": lambda: FileStrings(run.class_names or ()),
        "run_folder": run_folder,
        "sweep_folder": lambda name, task, now: sweep_folder(
            name, run.choices.get("task") or task if task == SAVED_OPTION else task, now
        ),
        "folder_name": safe_dir_name,
        "metric_name": lambda monitor: monitor.rpartition("/")[2],
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def _from_files(function: Callable[..., Sequence[str]]) -> Callable[..., FileStrings]:
    """What a function reads from files, once for each command, is text, whatever it looks like."""
    read = cache(function)
    return lambda *arguments: FileStrings(read(*arguments))


def _multiply(factor: float, value: float) -> float:
    if not isinstance(factor, int | float) or not isinstance(value, int | float):
        raise ConfigurationError(f"{factor} times {value}: both are to be numbers")
    return factor * value


def _folder_classes(root: str, expected: int | None = None) -> Sequence[str]:
    """The class folders of a root; ``expected`` of them, where their names are not those of the classes."""
    names = image_folder.class_names(root)
    if expected is not None and len(names) != expected:
        raise DataError(
            f"{root} has {len(names)} class folders, not {expected}: for a part of the classes, type data=folder"
        )
    return names


def _coco_categories(root: str) -> Sequence[str]:
    from vision_lab.data.formats import coco

    return coco.category_names(root)


def _packaged_lines(file: str) -> Sequence[str]:
    if Path(file).name != file or Path(file).suffix != ".txt":
        raise ConfigurationError(f"{file} is no list of names in vision_lab/data/bundled")
    return (DATA / file).read_text(encoding="utf-8").splitlines()
