"""The commands and code of README and docs work."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import FAST_ANY_MODEL, Outcome, composed
from vision_lab.config.validation import check_config
from vision_lab.modes.train import REQUIRED_GROUPS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
Command = Callable[..., Outcome]


def typed(text: str) -> list[list[str]]:
    """Return the words of each ``python -m vision_lab`` command in a text."""
    lines = re.findall(r"(?:^|`|# )python -m vision_lab ?([^`\n]*)", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


COMMANDS = [
    pytest.param(words, id=f"{file.stem}-{number}")
    for file in [*DOCUMENTS, *RECIPES]
    for number, words in enumerate(typed(file.read_text(encoding="utf-8")))
]


def test_the_docs_have_the_expected_number_of_commands():
    assert len(COMMANDS) == 116


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_composes(
    command: Command, words: list[str], make_folder: Callable[..., Path]
):
    """With the reader's own folder filled in, and the first value of each list of a sweep.

    A run that a command names is looked for, and missed by name.
    """
    if "--config-dir" in words:
        return  # typed for real below
    folder = make_folder()
    filled = [re.sub(r"(data\.root)=.*", rf"\1={folder}", word) for word in words if word != "-m"]
    if "-m" in words:
        filled = [re.sub(r",.*", "", word) for word in filled if "interval(" not in word]
    outcome = command(*filled, *([] if "--help" in filled else ["--cfg", "job"]))
    if any(word.startswith("run=") for word in words):
        assert outcome.code == 2
        assert "there is no such folder" in outcome.err
    elif "optimizer.lrr=0.1" in words:
        assert outcome.err.startswith(
            "error: model=resnet51: there is no such model. Did you mean resnet56"
        )
    else:
        assert outcome.code == 0, outcome.err


def list_systems() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Systems and their commands")[1].split("\n## ")[0]
    return re.findall(r"\| `([^`]*)` \|", section)


def test_the_readme_lists_all_systems():
    assert len(list_systems()) == 23


@pytest.mark.usefixtures("hydra_resolvers")
@pytest.mark.parametrize("words", list_systems())
def test_every_system_passes_all_checks_before_training(words: str):
    check_config(composed(*words.split()), REQUIRED_GROUPS)


@pytest.mark.slow
def test_the_model_in_the_docs(command: Command, tmp_path: Path):
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(blocks(text, "python")[0])
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    (tmp_path / "my_conf" / "model" / "mine.yaml").write_text(blocks(text, "yaml")[0])
    single, sweep = [words for words in typed(text) if "--config-dir" in words]
    assert command(*single, *FAST_ANY_MODEL, "name=one").code == 0
    assert command(*sweep, *FAST_ANY_MODEL, "name=many").code == 0
    assert len([path for path in Path("outputs/many").iterdir() if path.is_dir()]) == 4


@pytest.mark.slow
def test_the_dataset_in_the_docs(command: Command, tmp_path: Path):
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "shapes.py").write_text(blocks(text, "python")[0])
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "shapes.yaml").write_text(blocks(text, "yaml")[0])
    (tmp_path / "shapes").mkdir()
    for number in range(40):
        name = ("circle", "square")[number % 2]
        Image.fromarray(np.full((50, 60, 3), number, dtype=np.uint8)).save(
            tmp_path / "shapes" / f"{name}_{number}.png"
        )
    (words,) = [words for words in typed(text) if "data=shapes" in words]
    words = [word.replace("~", str(tmp_path)) for word in words]
    outcome = command(*words, *FAST_ANY_MODEL, "name=shapes")
    assert outcome.code == 0, outcome.err
    assert "shapes: 32 train, 4 val, 4 test; 2 classes, 3x64x64" in outcome.out


@pytest.mark.slow
def test_the_boxes_in_the_docs(command: Command, tmp_path: Path):
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "streets.py").write_text(blocks(text, "python")[1])
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "streets.yaml").write_text(blocks(text, "yaml")[1])
    folder = tmp_path / "streets" / "train"
    folder.mkdir(parents=True)
    for number in range(20):
        Image.fromarray(np.full((50, 60, 3), number, dtype=np.uint8)).save(folder / f"{number}.jpg")
        (folder / f"{number}.csv").write_text("car,10,20,50,45\nbus,5,5,30,30\ntree,1,1,9,9\n")
    (words,) = [words for words in typed(text) if "data=streets" in words]
    words = [word.replace("~", str(tmp_path)) for word in words]
    outcome = command(*words, *FAST_ANY_MODEL, "name=streets")
    assert outcome.code == 0, outcome.err
    assert "streets: 16 train, 2 val, 2 test; 2 classes, 3x96x96" in outcome.out
    assert "20 annotations are invalid" in outcome.out
    issues = Path("outputs/streets/annotation_issues.csv").read_text()
    assert "box 3 of 'tree' [1, 1, 9, 9] has a class that is not in data.spec.class_names" in issues


@pytest.mark.slow
def test_the_masks_and_the_head_in_the_docs(command: Command, tmp_path: Path):
    text = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8")
    streets, head = blocks(text, "yaml")
    for name, content in (("data/streets", streets), ("head/coarse", head)):
        (tmp_path / "my_conf" / name).parent.mkdir(parents=True)
        (tmp_path / "my_conf" / name).with_suffix(".yaml").write_text(content)
    (tmp_path / "my_head.py").write_text(blocks(text, "python")[0])
    colors = np.array([[128, 64, 128], [70, 70, 70], [0, 0, 0]], dtype=np.uint8)
    for number in range(10):
        for kind, values in (("images", [9, 99, 199]), ("masks", [0, 1, 2])):
            (tmp_path / "streets" / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.repeat(np.array(values)[:, None], 64, axis=1).repeat(20, axis=0)
            image = (
                colors[pixels]
                if kind == "masks"
                else np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8)
            )
            Image.fromarray(image).save(tmp_path / "streets" / kind / f"{number}.png")
    own, other = [words for words in typed(text) if "--config-dir" in words]
    words = [word.replace("~", str(tmp_path)) for word in own]
    outcome = command(*words, *FAST_ANY_MODEL, "name=streets", "data.spec.image_size=[64,64]")
    assert outcome.code == 0, outcome.err
    assert "streets: 8 train, 1 val, 1 test; 3 classes, 3x64x64" in outcome.out
    other = [word.replace("densenet121", "squeezenet1_1") for word in other]
    assert command(*other, *FAST_ANY_MODEL, "data.num_images.test=8").code == 0


def test_the_makefile_has_the_commands_of_the_readme():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(
        r"^make ([\w-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    ):
        assert f"\n{target}:" in makefile
