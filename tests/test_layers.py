"""Who may import whom. The table has a row for every file; a new file needs a new row."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "vision_lab"

ALLOWED = {
    "__init__": "",
    "__main__": "app interruption",
    "again": "config.resolution core.documents environment runs types",
    "app": "build command_line config core help interruption modes.stored runs sweeps types",
    "build": "checkpoints config core.arguments data models runs tasks types",
    "checkpoints": "core.files types",
    "claims": "core.files runs types",
    "command_line": "config.groups",
    "drawing": "",
    "environment": "",
    "help": "config.groups types",
    "interruption": "",
    "randomness": "",
    "runs": "core environment types",
    "schedules": "",
    "sweeps": "runs types",
    "types": "core.arguments",
    "callbacks.checkpoints": "callbacks.step_logger callbacks.tensorboard checkpoints core interruption tasks.base types",
    "callbacks.epochs": "callbacks.step_logger core.files",
    "callbacks.terminate_on_nan": "callbacks.checkpoints callbacks.step_logger types",
    "callbacks.image_logger": "callbacks.step_logger drawing core.files tasks.base types",
    "callbacks.progress_bar": "",
    "callbacks.hparams": "callbacks.step_logger tasks.base",
    "callbacks.sample_logger": "callbacks.image_logger core.files data.reading tasks.base",
    "callbacks.step_logger": "core.files tasks.base types",
    "callbacks.tensorboard": "core.files",
    "callbacks.gan_monitor": "callbacks.epochs types",
    "config.groups": "",
    "config.instantiation": "types",
    "config.ranges": "core.arguments",
    "config.resolution": "types",
    "config.resolvers": "config data.coco data.folder data.scene_classes data.voc_xml data.yolo_txt runs types",
    "config.saved": "command_line config runs types",
    "config.trust": "config.groups core",
    "config.validation": "config core.arguments types",
    "core.arguments": "",
    "core.documents": "core.files core.text",
    "core.failures": "core.files core.text types",
    "core.files": "types",
    "core.machine": "",
    "core.text": "",
    "data.boxes": "types",
    "data.coco": "data.boxes data.folder types",
    "data.downloads": "types",
    "data.examination": "data.examples types",
    "data.examples": "data.reading data.transforms interruption randomness types",
    "data.fashion_mini": "",
    "data.fingerprint": "types",
    "data.folder": "types",
    "data.mask_dir": "data.folder data.reading types",
    "data.module": "data interruption types",
    "data.order": "data.splits randomness types",
    "data.reading": "",
    "data.scene_classes": "types",
    "data.scenes": "data types",
    "data.splits": "randomness types",
    "data.transforms": "types",
    "data.voc": "data",
    "data.voc_xml": "data.boxes data.folder types",
    "data.yolo_txt": "data.boxes data.folder types",
    "heads.deeplabv3": "heads.scores types",
    "heads.faster_rcnn": "heads types",
    "heads.fcos": "heads types",
    "heads.fcn": "heads.scores types",
    "heads.linear": "types",
    "heads.none": "types",
    "heads.pyramid": "types",
    "heads.retinanet": "heads types",
    "heads.scores": "types",
    "heads.segnet": "heads.scores types",
    "heads.ssd": "heads types",
    "heads.torchvision_detectors": "types",
    "heads.unet": "heads.scores types",
    "heads.yolo": "heads types",
    "models.backbone": "models types",
    "models.cifar_resnet": "",
    "models.dcgan": "models.weights types",
    "models.dilation": "models",
    "models.features": "models types",
    "models.maps": "models.dilation",
    "models.probing": "types",
    "models.stem": "models.probing",
    "models.unet": "",
    "models.weights": "models.stem types",
    "modes.check": "build config core.files data drawing modes.screen types",
    "modes.evaluate": "build config core.files modes runs types",
    "modes.predict": "build config data drawing modes runs tasks types",
    "modes.processes": "command_line config.resolution runs types",
    "modes.sample": "build config core.files drawing modes runs tasks.generate types",
    "modes.screen": "core data runs tasks",
    "modes.stored": "again config.resolution modes.screen runs types",
    "modes.train": "again build callbacks checkpoints claims config core data interruption models.probing modes "
    "runs tasks types",
    "modes.trained": "build checkpoints config.resolution modes runs tasks types",
    "tasks.adversarial": "schedules tasks types",
    "tasks.adversarial_losses": "types",
    "tasks.balance": "types",
    "tasks.base": "drawing randomness schedules types",
    "tasks.classify": "drawing tasks types",
    "tasks.coco_json": "",
    "tasks.detect": "core.files drawing tasks types",
    "tasks.diffaugment": "types",
    "tasks.distances": "",
    "tasks.generate": "drawing randomness tasks types",
    "tasks.measures": "types",
    "tasks.precision": "types",
    "tasks.segment": "core.files drawing tasks types",
    "tasks.tiles": "",
    "tasks.worst": "",
}

TORCHLESS = (
    "again app claims command_line config.groups config.instantiation config.ranges config.resolution config.resolvers "
    "config.saved config.trust config.validation core.arguments core.documents core.files core.text environment help "
    "interruption runs schedules sweeps types data.folder data.scene_classes data.voc_xml data.yolo_txt modes.screen "
    "modes.stored core.failures"
).split()


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
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("vision_lab")
        ):
            base = node.module.removeprefix("vision_lab").lstrip(".")
            inside = [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
            found |= {
                name if (PACKAGE / Path(*name.split("."))).with_suffix(".py").exists() else base
                for name in inside
            }
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("vision_lab.")
                for alias in node.names
                if alias.name.startswith("vision_lab")
            }
    return found


def test_every_file_imports_only_what_its_row_allows():
    files = _files()
    assert set(files) == set(ALLOWED)
    wrong = []
    for name, file in files.items():
        allowed = [
            *ALLOWED[name].split(),
            *([] if name.startswith("core.") else ["core"]),
        ]  # the ground
        wrong += [
            f"{name} imports {other}"
            for other in sorted(_imported(file))
            if not any(other == each or other.startswith(f"{each}.") for each in allowed)
        ]
    assert not wrong
    assert len(files) == 108


def test_init_files_are_empty():
    files = list(PACKAGE.rglob("__init__.py"))
    assert len(files) == 9
    assert [file for file in files if file.read_text(encoding="utf-8").strip()] == []


def test_only_build_instantiates_and_only_app_reads_argv():
    texts = {name: file.read_text(encoding="utf-8") for name, file in _files().items()}
    assert [name for name, text in texts.items() if "instantiate(" in text] == [
        "build",
        "config.instantiation",
    ]
    readers = sorted(name for name, text in texts.items() if "sys.argv" in text)
    assert readers == [
        "app",
        "environment",
        "modes.processes",
    ]  # which record it, and hand it on to further processes


def test_no_torch_before_a_mode_needs_it():
    code = f"import sys; import {', '.join(f'vision_lab.{name}' for name in TORCHLESS)};sys.exit({HEAVY})"
    assert len(TORCHLESS) == 30
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_and_cfg_import_no_torch():
    for words in (["--help"], ["--help", "model"], ["--cfg", "job", "--resolve"]):
        code = f"import sys; from vision_lab.cli.main import main; code = main({words!r}); sys.exit(code or {HEAVY})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
