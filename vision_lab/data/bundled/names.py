"""Lists of class names that are part of the package."""

from pathlib import Path

from vision_lab.core.errors import ConfigurationError

FOLDER = Path(__file__).parent


def read_names(file: str) -> list[str]:
    """Read a list of names, one a line.

    Args:
        file: name of the file, such as ``imagenet_classes.txt``.

    Raises:
        ConfigurationError: if it is not one of the lists.
    """
    if Path(file).name != file or Path(file).suffix != ".txt":
        raise ConfigurationError(f"{file} is not a list of names in vision_lab/data/bundled")
    return (FOLDER / file).read_text(encoding="utf-8").splitlines()
