"""Resolvers of ``conf/``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from vision_lab.config import resolvers
from vision_lab.config.saved import SavedRun


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    resolvers.register_resolvers()


def resolve(text: str, **values: Any) -> Any:
    return OmegaConf.create({"x": text, **values}).x


def test_values_are_computed():
    assert resolve("${count:[a,b,c]}") == 3
    assert resolve("${times:2.5,${lr}}", lr=0.02) == pytest.approx(0.05)
    assert resolve("${one_of:[masks,boxes],boxes}") == "boxes"
    assert resolve("${one_of:[masks,boxes],labels}") == "masks"
    assert resolve("${metric_name:val/accuracy}") == "accuracy"


FOLDERS = "vision_lab.data.formats.image_folder"
IMAGENET = "vision_lab.data.formats.imagenet"
SCENES = "vision_lab.data.bundled.scene_classes.class_names"
LISTS = "vision_lab.data.bundled.names.read_names"


def test_a_reader_that_does_not_exist_is_named():
    with pytest.raises(InterpolationResolutionError, match=r"no\.reader cannot be found"):
        resolve("${names_from:no.reader,x}")


def test_text_is_not_multiplied():
    with pytest.raises(InterpolationResolutionError, match="2 times abc: both must be numbers"):
        resolve("${times:2,abc}")


def test_classes_of_folders_and_their_number(make_folder: Callable[..., Path]):
    folder = make_folder(count=1)
    assert resolve(f"${{names_from:{FOLDERS}.class_names,{folder}}}") == ["ash", "beech", "cedar"]
    folder = make_folder("ids", classes=("n1", "n2", "n3"), count=1)
    assert resolve(f"${{names_from:{IMAGENET}.class_folders,{folder},3}}") == ["n1", "n2", "n3"]
    with pytest.raises(InterpolationResolutionError, match="has 3 classes, not 1000"):
        resolve(f"${{names_from:{IMAGENET}.class_folders,{folder},1000}}")


def test_classes_are_read_once_in_a_command(make_folder: Callable[..., Path]):
    folder = make_folder(count=1)
    text = f"${{names_from:{FOLDERS}.class_names,{folder}}}"
    assert len(resolve(text)) == 3
    (folder / "cedar").rename(folder.parent / "cedar")
    assert len(resolve(text)) == 3
    resolvers.register_resolvers()  # the next command
    assert len(resolve(text)) == 2


def test_scenes_have_a_background_in_masks_only():
    assert resolve(f"${{names_from:{SCENES},grouped,masks}}")[0] == "background"
    assert len(resolve(f"${{names_from:{SCENES},all,boxes}}")) == 10


@pytest.mark.parametrize("file", ["../x.txt", "/etc/passwd", "coco_numbers.py"])
def test_only_lists_in_the_package_are_read(file: str):
    assert len(resolve(f"${{names_from:{LISTS},imagenet_classes.txt}}")) == 1000
    with pytest.raises(InterpolationResolutionError, match="is not a list of names in"):
        resolve(f"${{names_from:{LISTS},{file}}}")


def test_class_names_of_a_run_are_kept_as_text():
    resolvers.register_resolvers(SavedRun({}, ["${oc.env:HOME}", "cat"]))
    names = resolve("${saved_class_names:}")
    assert names.strings == ["${oc.env:HOME}", "cat"]
