"""Who may import whom. The table has a row for every file; a new file needs a new row."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "vision_lab"

ALLOWED = {
    "__init__": "",
    "__main__": "app",
    "app": "build choices command_line help replay resolvers runs sweeps types",
    "build": "choices data models tasks types",
    "choices": "",
    "command_line": "choices",
    "drawing": "",
    "help": "choices types",
    "randomness": "",
    "replay": "choices command_line runs types",
    "resolvers": "data.folder replay runs types",
    "runs": "types",
    "schedules": "",
    "sweeps": "runs",
    "types": "",
    "callbacks.epochs": "",
    "callbacks.pictures": "drawing tasks.base types",
    "callbacks.progress": "",
    "callbacks.run_card": "tasks.base",
    "callbacks.steps": "types",
    "callbacks.tensorboard": "",
    "data.downloads": "types",
    "data.fashion_mini": "",
    "data.folder": "types",
    "data.module": "data randomness types",
    "data.order": "randomness types",
    "data.reading": "",
    "data.transforms": "",
    "heads.linear": "types",
    "models.backbone": "models types",
    "models.cifar_resnet": "",
    "models.probing": "types",
    "models.stem": "models.probing",
    "models.weights": "models.stem types",
    "modes.evaluate": "build modes runs types",
    "modes.predict": "build data drawing modes runs tasks types",
    "modes.screen": "data runs tasks",
    "modes.train": "build data models.probing modes runs tasks types",
    "modes.trained": "build modes replay runs tasks types",
    "tasks.base": "randomness schedules types",
    "tasks.classify": "drawing tasks types",
    "tasks.measures": "",
}

TORCHLESS = "app choices command_line help replay resolvers runs schedules sweeps types data.folder".split()


HEAVY = "bool({'torch', 'torchvision', 'pytorch_lightning'} & set(sys.modules))"
"""Whether a process has imported what takes seconds."""


def _name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def _files() -> dict[str, Path]:
    files = {_name(file): file for file in PACKAGE.rglob("*.py")}
    return {name: file for name, file in files.items() if not name.endswith(".__init__")}


def _imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vision_lab"):
            base = node.module.removeprefix("vision_lab").lstrip(".")
            inside = [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
            found |= {
                name if (PACKAGE / Path(*name.split("."))).with_suffix(".py").exists() else base for name in inside
            }
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("vision_lab.") for alias in node.names if alias.name.startswith("vision_lab")
            }
    return found


def test_every_file_imports_only_what_its_row_allows():
    files = _files()
    assert set(files) == set(ALLOWED)
    wrong = []
    for name, file in files.items():
        allowed = ALLOWED[name].split()
        wrong += [
            f"{name} imports {other}"
            for other in sorted(_imported(file))
            if not any(other == each or other.startswith(f"{each}.") for each in allowed)
        ]
    assert not wrong
    assert len(files) == 42


def test_init_files_are_empty():
    files = list(PACKAGE.rglob("__init__.py"))
    assert len(files) == 7
    assert [file for file in files if file.read_text(encoding="utf-8").strip()] == []


def test_only_build_instantiates_and_only_app_reads_argv():
    texts = {name: file.read_text(encoding="utf-8") for name, file in _files().items()}
    assert [name for name, text in texts.items() if "instantiate(" in text] == ["build"]
    assert sorted(name for name, text in texts.items() if "sys.argv" in text) == ["app", "runs"]  # runs: records it


def test_no_torch_before_a_mode_needs_it():
    code = f"import sys; import {', '.join(f'vision_lab.{name}' for name in TORCHLESS)};sys.exit({HEAVY})"
    assert len(TORCHLESS) == 11
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_and_cfg_import_no_torch():
    for words in (["--help"], ["--help", "model"], ["--cfg", "job", "--resolve"]):
        code = f"import sys; from vision_lab.app import main; code = main({words!r}); sys.exit(code or {HEAVY})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
