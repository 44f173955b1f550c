"""``python -m vision_lab``, and the console script of the same name."""

import sys

from vision_lab.cli.main import main as run
from vision_lab.core.signals import end_children


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        sys.exit(run())
    finally:
        end_children()


if __name__ == "__main__":
    main()
