"""Resolvers for interpolations in ``conf/``, such as ``${folder_classes:...}``.

Does not import torch, so that ``--cfg job --resolve`` takes half a second.
"""

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
from vision_lab.run_folders.naming import run_folder, safe_dir_name, sweep_folder

BUNDLED_DATA = Path(__file__).parents[1] / "data" / "bundled"


def register_resolvers(saved: SavedRun | None = None) -> None:
    """Register the resolvers with OmegaConf.

    Args:
        saved: the run given by ``run=`` or ``resume=``.
    """
    run = saved or SavedRun()

    def choice(group: str) -> str | None:
        from hydra.core.hydra_config import HydraConfig

        chosen = HydraConfig.get().runtime.choices.get(group)
        if chosen == SAVED_OPTION:
            return run.choices.get(group)
        return chosen

    def get_sweep_folder(name: str | None, task: str, now: str) -> str:
        if task == SAVED_OPTION:
            task = run.choices.get("task") or task
        return sweep_folder(name, task, now)

    # Cached for this command only: before the next one the file may change.
    coco_categories = cache(_read_coco_categories)
    resolvers: dict[str, Callable[..., Any]] = {
        "choice": choice,
        "count": len,
        "times": _multiply,
        "folder_classes": _reads_files(_read_folder_classes),
        "one_of": lambda options, wanted: wanted if wanted in options else options[0],
        "scene_classes": _scene_classes,
        "coco_classes": _reads_files(lambda root: ["background", *coco_categories(root)]),
        "coco_categories": _reads_files(coco_categories),
        "voc_names": _reads_files(voc_xml.class_names),
        "yolo_names": _reads_files(yolo_txt.class_names),
        "packaged_lines": _reads_files(_read_packaged_lines),
        "saved_class_names": lambda: FileStrings(run.class_names or ()),
        "run_folder": run_folder,
        "sweep_folder": get_sweep_folder,
        "folder_name": safe_dir_name,
        "metric_name": lambda monitor: monitor.rpartition("/")[2],
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def _reads_files(function: Callable[..., Sequence[str]]) -> Callable[..., FileStrings]:
    """Wrap a function that reads strings from files: cached, and never resolved further."""
    return cache(lambda *arguments: FileStrings(function(*arguments)))


def _scene_classes(labels: str, target_type: str) -> FileStrings:
    has_background = target_type == "masks"
    return FileStrings(scene_classes.class_names(labels, background=has_background))


def _multiply(factor: float, value: float) -> float:
    if not isinstance(factor, int | float) or not isinstance(value, int | float):
        raise ConfigurationError(f"{factor} times {value}: both must be numbers")
    return factor * value


def _read_folder_classes(root: str, expected: int | None = None) -> Sequence[str]:
    """Return the names of the class folders in ``root``.

    Args:
        root: folder of the dataset.
        expected: required number of class folders, for datasets that name their classes elsewhere.
    """
    names = image_folder.class_names(root)
    if expected is not None and len(names) != expected:
        raise DataError(
            f"{root} has {len(names)} class folders, not {expected}: for a subset of the classes, "
            "type data=folder"
        )
    return names


def _read_coco_categories(root: str) -> Sequence[str]:
    from vision_lab.data.formats import coco

    return coco.category_names(root)


def _read_packaged_lines(file: str) -> Sequence[str]:
    if Path(file).name != file or Path(file).suffix != ".txt":
        raise ConfigurationError(f"{file} is not a list of names in vision_lab/data/bundled")
    return (BUNDLED_DATA / file).read_text(encoding="utf-8").splitlines()
