"""Groups of samples, by folder or from a CSV file."""

from pathlib import Path

import pytest

from vision_lab.core.errors import DataError
from vision_lab.data.formats.image_folder import LabeledImages
from vision_lab.data.sample_groups import find_groups

PATHS = ["cat/a/1.jpg", "cat/b/1.jpg", "dog/a/2.jpg"]


def images(root: Path) -> LabeledImages:
    return LabeledImages([root / path for path in PATHS], [0, 0, 1])


def write(folder: Path, *lines: str) -> str:
    file = folder / "groups.csv"
    file.write_text("\n".join(["image,group,age", *lines]))
    return str(file)


def test_folders_of_one_name_are_a_group(tmp_path: Path):
    assert find_groups(images(tmp_path), "folder") == ["a", "b", "a"]


def test_a_file_names_groups_by_the_ends_of_paths(tmp_path: Path):
    file = write(tmp_path, "a/1.jpg,x,3", "cat/b/1.jpg,y,4", "2.jpg,x,5", "other.jpg,z,6")
    assert find_groups(images(tmp_path), file) == ["x", "y", "x"]


def test_files_of_excel_are_read(tmp_path: Path):
    file = tmp_path / "groups.csv"
    file.write_text('image,group\r\na/1.jpg,"x\u0085,y"\r\nb/1.jpg,z\r\n2.jpg,z\r\n', "utf-8-sig")
    assert find_groups(images(tmp_path), str(file)) == ["x\x85,y", "z", "z"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a/1.jpg,x,1", "b/1.jpg,x,1"], r"1 images have no group: .*dog/a/2.jpg"),
        (["1.jpg,x,1", "2.jpg,x,1"], r"1.jpg is the end of several paths.*write more of the path"),
        (["1.jpg,x,1", "1.jpg,y,1"], "1.jpg is in two groups"),
        (["1.jpg,x,1", "2.jpg"], "line 3 is incomplete"),
    ],
)
def test_incomplete_files_are_refused(tmp_path: Path, lines: list[str], message: str):
    with pytest.raises(DataError, match=message):
        find_groups(images(tmp_path), write(tmp_path, *lines))


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"No such file.*type folder, or the path of a CSV file"):
        find_groups(images(tmp_path), str(tmp_path / "absent.csv"))
    file = tmp_path / "other.csv"
    file.write_text("name,patient\n1.jpg,x\n")
    with pytest.raises(DataError, match="requires the columns image and group, has name, patient"):
        find_groups(images(tmp_path), str(file))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        find_groups(images(tmp_path), str(file))


def test_images_must_be_files():
    with pytest.raises(DataError, match=r"data.groups=folder requires images in files"):
        find_groups([([0], 0)], "folder")
