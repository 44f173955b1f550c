"""Which package may import which. The table has a row for each package; a new one needs a row."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "vision_lab"

LAYERS = (
    "core",
    "viz loggers",
    "training losses metrics heads models run_folders",
    "data.bundled data.formats tasks.reports",
    "data data.shards tasks config",
    "callbacks search build compare",
    "plugins",
    "modes",
    "cli",
    "api",
    "__init__ __main__",
)
"""The layers, from the ground; a package imports from its own layer and those below only."""

IMPORTS = {
    "__init__": "api",
    "__main__": "cli core",
    "api": "build cli config core modes run_folders tasks tasks.reports",
    "build": "callbacks config core data models run_folders search tasks tasks.reports training",
    "callbacks": "core data loggers tasks tasks.reports training viz",
    "cli": "config core modes run_folders",
    "compare": "core loggers run_folders",
    "config": "core run_folders",
    "core": "",
    "data": "core training",
    "data.bundled": "core",
    "data.formats": "core data",
    "data.shards": "core data data.formats training",
    "heads": "core",
    "loggers": "core",
    "losses": "core",
    "metrics": "core",
    "models": "core",
    "modes": "build callbacks compare config core data data.formats data.shards models run_folders tasks training viz",
    "plugins": "search",
    "run_folders": "core",
    "tasks": "core losses metrics tasks.reports training",
    "tasks.reports": "core metrics viz",
    "search": "config core run_folders",
    "training": "core",
    "viz": "core",
}
"""The packages that each package imports."""

TORCHLESS = (
    "cli.help cli.main cli.suggestions compare.comparison compare.groups compare.runs compare.statistics "
    "compare.curves compare.difference compare.progress compare.tables compare.tensorboard config.composition config.groups config.instantiation config.modes config.overrides "
    "config.ranges config.resolution config.resolvers config.saved config.trust config.validation "
    "core.allocator core.arguments core.batch core.checking core.console core.documents core.errors core.failures core.files "
    "core.garbage_collection core.lean_imports core.machine core.protocols core.sample_files core.signals core.signatures core.spec core.text "
    "data.bundled.scene_classes data.formats.image_folder data.formats.voc_xml "
    "data.encoded_image data.formats.imagenet data.formats.parquet data.formats.tar_images data.shards.spec "
    "data.formats.yolo_txt loggers.event_files modes.compare modes.diff modes.finished modes.reports run_folders.environment run_folders.folder run_folders.lock "
    "run_folders.naming run_folders.resume run_folders.sweep training.lr_schedules"
).split()
"""Modules that must not import torch, because they run before a mode does."""

HEAVY = "bool({'torch', 'torchvision', 'pytorch_lightning'} & set(sys.modules))"
"""Whether a process has imported a library that takes seconds."""


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def package_of(module: str) -> str:
    """Return the longest name in the table that contains a module."""
    owners = [name for name in IMPORTS if module == name or module.startswith(f"{name}.")]
    assert owners, f"{module} belongs to no row of the table"
    return max(owners, key=len)


def list_files() -> dict[str, Path]:
    files = {module_name(file): file for file in PACKAGE.rglob("*.py")}
    return {name: file for name, file in files.items() if not name.endswith(".__init__")}


def imported_modules(file: Path) -> set[str]:
    """Return the modules of this package that a file imports, also within functions."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("vision_lab."):
                modules.add(name.removeprefix("vision_lab."))
    return modules


def test_packages_import_what_their_rows_list():
    found: dict[str, set[str]] = {name: set() for name in IMPORTS}
    for name, file in list_files().items():
        package = package_of(name)
        imported = {package_of(module) for module in imported_modules(file)}
        found[package] |= imported - {package}
    assert found == {name: set(row.split()) for name, row in IMPORTS.items()}
    assert len(found) == 26


def test_no_package_imports_a_higher_layer():
    level = {name: i for i, names in enumerate(LAYERS) for name in names.split()}
    assert set(level) == set(IMPORTS)
    upward = []
    for name, row in IMPORTS.items():
        upward += [f"{name} -> {other}" for other in row.split() if level[other] > level[name]]
    # The readers of formats are a part of data, from which they take the decoding of images.
    assert upward == ["data.formats -> data"]


def test_few_files_are_at_the_top_level():
    names = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"}
    assert names == {"__init__.py", "__main__.py", "build.py"}


def test_init_files_are_empty():
    """But that of the package, the public Python interface."""
    files = list(PACKAGE.rglob("__init__.py"))
    assert len(files) == 25
    filled = [file for file in files if file.read_text(encoding="utf-8").strip()]
    assert filled == [PACKAGE / "__init__.py"]


def test_the_package_is_imported_without_torch_and_hydra():
    code = "import sys, vision_lab; sys.exit(bool({'torch', 'hydra', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_build_instantiates_and_few_modules_read_argv():
    texts = {name: file.read_text(encoding="utf-8") for name, file in list_files().items()}
    users = [name for name, text in texts.items() if "instantiate(" in text]
    assert sorted(users) == ["build", "config.instantiation", "config.modes", "search.study"]
    readers = [name for name, text in texts.items() if "sys.argv" in text]
    assert sorted(readers) == [
        "api.state",
        "cli.main",
        "modes.subprocesses",
        "run_folders.environment",
    ]


def test_torch_is_not_imported_before_a_mode_needs_it():
    modules = ", ".join(f"vision_lab.{name}" for name in TORCHLESS)
    code = f"import sys; import {modules}; sys.exit({HEAVY})"
    assert len(TORCHLESS) == 62
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_and_cfg_import_no_torch():
    for words in (["--help"], ["--help", "model"], ["--cfg", "job", "--resolve"]):
        code = (
            "import sys; from vision_lab.cli.main import main; "
            f"code = main({words!r}); sys.exit(code or {HEAVY})"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
