"""What is attacked: one function a family."""

from annotations import attack_annotations
from command_lines import attack_command_line
from images import attack_images
from run_folders import attack_run_folder, make_runs

__all__ = [
    "attack_annotations",
    "attack_command_line",
    "attack_images",
    "attack_run_folder",
    "make_runs",
]
