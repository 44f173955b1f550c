"""``python -m vision_lab``, and the console script of the same name."""

import sys

from vision_lab.cli.main import main as run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
