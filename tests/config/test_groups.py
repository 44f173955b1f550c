"""Groups and options are found in config folders, without Hydra."""

from pathlib import Path

from vision_lab.config.groups import CONFIG_DIR, find_groups


def write(folder: Path, name: str, text: str = "# An option\n") -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_options_are_in_natural_order_and_shared_defaults_are_none(tmp_path: Path):
    for name in ("resnet101", "resnet18", "resnet50", "_backbone"):
        write(tmp_path, f"model/{name}.yaml")
    (group,) = find_groups([tmp_path]).values()
    assert [option.name for option in group] == ["resnet18", "resnet50", "resnet101"]


def test_groups_of_a_user_come_last_and_options_replace_ours(tmp_path: Path):
    write(tmp_path, "animals/cat.yaml")
    write(tmp_path, "optimizer/sgd.yaml", "# My own\n")
    groups = find_groups([CONFIG_DIR, tmp_path])
    assert next(iter(groups)) == "task"
    assert list(groups)[-1] == "animals"
    (sgd,) = (option for option in groups["optimizer"] if option.name == "sgd")
    assert (sgd.file.parent, sgd.summary) == (tmp_path / "optimizer", "My own")


def test_the_summary_is_the_first_comment_that_is_not_a_package(tmp_path: Path):
    write(tmp_path, "task/mine.yaml", "# @package _global_\n# What it does\ntask: {}\n# more\n")
    write(tmp_path, "task/silent.yaml", "a: 1\n")
    mine, silent = find_groups([tmp_path])["task"]
    assert (mine.summary, silent.summary) == ("What it does", "")


def test_target_types_come_from_the_file_or_its_defaults(tmp_path: Path):
    write(tmp_path, "data/base.yaml", "spec:\n  target_type: masks\n")
    write(tmp_path, "data/child.yaml", "defaults:\n  - base\nroot: x\n")
    write(tmp_path, "data/both.yaml", "target_type: ${one_of:[masks,boxes],${task.target_type}}\n")
    write(tmp_path, "data/none.yaml", "a: 1\n")
    found = {option.name: option.target_types for option in find_groups([tmp_path])["data"]}
    assert found == {
        "base": ("masks",),
        "child": ("masks",),
        "both": ("masks", "boxes"),
        "none": (),
    }
