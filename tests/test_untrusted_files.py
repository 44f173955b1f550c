"""Run folders, datasets and files of others run nothing, write nowhere else and read no secrets.

Tested through the command line only, whatever is behind it.
"""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.builders import FAST_ANY_MODEL, Outcome
from vision_lab.cli.main import main

Command = Callable[..., Outcome]
Change = Callable[[dict[str, Any]], None]

HUB = "import pathlib\npathlib.Path({stolen!r}).touch()\nimport torch\ndef go(*a, **k): return torch.nn.Identity()\n"


WORDS = {
    "labels": ("data.samples_per_class=16",),
    "made": (
        "task=generate",
        "model.generator_channels=4",
        "model.discriminator_channels=4",
        "task.num_samples=8",
        "data.samples_per_class=8",
        "data.spec.image_size=[16,16]",
        "trainer.limit_test_batches=1",
    ),
    "masks": (
        "task=segment",
        "data.num_images={train: 8, val: 2, test: 2}",
        "data.spec.image_size=[32,32]",
        "model.stem=imagenet",
        "task.class_weights=null",
    ),
}
"""run: how it is made."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Train a run of a kind, once."""
    folder = tmp_path_factory.mktemp("runs")

    def make(kind: str) -> Path:
        if not (folder / "outputs" / kind).is_dir():
            with chdir(folder):
                assert main([*FAST_ANY_MODEL, *WORDS[kind], f"name={kind}"]) == 0
        return folder / "outputs" / kind

    return make


@pytest.fixture
def stolen(tmp_path: Path) -> Path:
    """The file that injected code would write."""
    return tmp_path / "stolen"


@pytest.fixture
def gift(
    command: Command, runs: Callable[[str], Path], tmp_path: Path, stolen: Path
) -> Callable[..., Path]:
    """Copy a run with a changed config and a repository of code beside it."""

    def make(
        change: Change = lambda _: None, *, run: str = "labels", file: str = "config.yaml"
    ) -> Path:
        folder = Path(shutil.copytree(runs(run), tmp_path / "gift"))
        (folder / "evil").mkdir()
        (folder / "evil" / "hubconf.py").write_text(HUB.format(stolen=str(stolen)))
        config = yaml.safe_load((folder / file).read_text())
        change(config)
        (folder / file).write_text(yaml.safe_dump(config))
        Image.new("L", (40, 40)).save(tmp_path / "a.png")
        return folder

    return make


def hub(folder: str) -> dict[str, Any]:
    return {
        "_target_": "torch.hub.load",
        "repo_or_dir": f"{folder}/evil",
        "model": "go",
        "source": "local",
    }


def by_seed(config: dict[str, Any]) -> None:
    """References whose value changes when Lightning sets its seed."""
    config["tgt"] = {"x": "torch.nn.Identity", "s0": "torch.hub.load"}
    target = "${oc.select:tgt.s${oc.env:PL_GLOBAL_SEED,z},${tgt.x}}"
    folder = "${one_of:[${run}],${resume}}"
    config["scheduler"] = {**hub(folder), "_target_": target}


def by_deletion(config: dict[str, Any]) -> None:
    """References whose value changes when mode=predict removes keys of the data."""
    config["data"]["lure"] = "torch.nn.Identity"
    config["data"]["source"]["root"] = "${one_of:[train],${data.lure}}"
    config["augment"]["eval"] = [
        {**hub("${run}"), "_target_": "${oc.select:data.lure,torch.hub.load}"}
    ]


def by_decoding(config: dict[str, Any]) -> None:
    inner = ",".join(f"{key}:'{value}'" for key, value in hub("gift").items())
    config["callbacks"]["hparams"]["hparams"]["x"] = "${oc.create:{" + inner + "}}"


def by_a_string(config: dict[str, Any]) -> None:
    config["scheduler"] = {**hub("${run}"), "_target_": "${oc.decode:torch.hub.load}"}


COMMANDS = {
    "evaluate": ("mode=evaluate", "run=gift"),
    "predict": ("mode=predict", "run=gift", "source=a.png"),
    "train": ("run=gift", "trainer.max_epochs=1"),
    "resume": ("resume=gift",),
}


@pytest.fixture(autouse=True)
def _no_seed_of_another_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.mark.parametrize("mode", COMMANDS)
@pytest.mark.parametrize(
    "change", [by_seed, by_deletion, by_decoding, by_a_string], ids=lambda f: f.__name__
)
def test_references_are_never_code(
    command: Command, gift: Callable, stolen: Path, change: Change, mode: str
):
    folder = gift(change)
    if mode == "resume":
        (folder / "result.json").unlink()
        (folder / "status.json").unlink()
    outcome = command(*COMMANDS[mode])
    assert not stolen.exists()
    assert outcome.code == 2
    assert "is from the run folder" in outcome.err


def test_features_of_a_run_are_never_code(command: Command, gift: Callable, stolen: Path):
    def change(config: dict[str, Any]) -> None:
        config["seed"] = 7
        target = "${oc.select:model.network.tgt${oc.env:PL_GLOBAL_SEED},torch.nn.Identity}"
        config["model"]["network"] = {
            **hub("gift"),
            "_target_": target,
            "tgt7": "torch.hub.load",
        }

    gift(change, file="config_resolved.yaml")
    outcome = command(
        "task=generate", *FAST_ANY_MODEL, "features=run", "features.folder=gift", "name=x"
    )
    assert not stolen.exists()
    assert outcome.code == 1
    assert "features.folder=gift: model.network._target_=" in outcome.err


def names_of_classes(stolen: Path) -> list[str]:
    return [
        "${oc.create:{_target_:torch.hub.load,repo_or_dir:imgs,model:go,source:local}}",
        "${oc.env:SECRET}",
        "???",
    ]


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SECRET", "hunter2")
    return "hunter2"


def assert_nowhere(text: str, folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if text.encode() in path.read_bytes()]


def test_a_class_folder_name_is_never_code(
    command: Command, tmp_path: Path, stolen: Path, secret: str
):
    names = names_of_classes(stolen)
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "hubconf.py").write_text(HUB.format(stolen=str(stolen)))
    words = (
        *FAST_ANY_MODEL,
        "data.root=imgs",
        "data.spec.image_size=[32,32]",
        "data.num_workers=0",
    )
    for name in names:
        (tmp_path / "imgs" / "train" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (60 * number,) * 3).save(
                tmp_path / "imgs" / "train" / name / f"{number}.png"
            )
    outcome = command("data=folder", *words, "name=own")
    assert not stolen.exists()
    assert outcome.code == 0, outcome.err
    spec = json.loads(Path("outputs/own/data_spec.json").read_text())
    assert spec["class_names"] == sorted(names)
    assert "${oc.env:SECRET}" in Path("outputs/own/config_resolved.yaml").read_text()
    assert_nowhere(secret, Path("outputs/own"))
    again = command("mode=evaluate", "run=outputs/own")
    assert again.code == 0, again.err
    assert "bit-exactly the result reported after training" in again.out
    for number in range(1000 - len(names)):
        (tmp_path / "imgs" / "train" / f"n{number:04d}").mkdir()
    assert "n0000 contains no images" in command("data=imagenet", *words, "name=real").err
    assert not stolen.exists()


@pytest.mark.parametrize("kind", ["yolo_txt", "coco", "voc_detect"])
def test_class_names_in_annotations_are_never_code(
    command: Command,
    tmp_path: Path,
    stolen: Path,
    secret: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
):
    from tests.data import annotation_files

    names = sorted(names_of_classes(stolen))
    monkeypatch.setattr(annotation_files, "NAMES", names)
    boxes = {
        image: [(names[index % 3], (2, 2, 20, 20)), (names[(index + 1) % 3], (20, 5, 38, 28))]
        for index, image in enumerate("abcd")
    }
    root = annotation_files.FORMATS[kind](tmp_path / "data", boxes)
    if kind == "yolo_txt":
        (root / "data.yaml").write_text(yaml.safe_dump({"names": names}))
    words = (
        "task=detect",
        "model=resnet20",
        f"data={kind}",
        f"data.root={root}",
        "data.spec.image_size=[64,64]",
    )
    outcome = command(
        *words, *FAST_ANY_MODEL, "data.num_workers=0", "data.batch_size=2", "name=own"
    )
    assert outcome.code == 0, outcome.err
    spec = json.loads(Path("outputs/own/data_spec.json").read_text())
    assert spec["class_names"] == names
    assert_nowhere(secret, Path("outputs/own"))


def victim(tmp_path: Path) -> str:
    return str(tmp_path / "VICTIM")


def up(path: str) -> str:
    return "../" * 30 + path.lstrip("/")


WRITERS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "file name of the best": lambda c, v: c["callbacks"]["best_checkpoint"].update(
        filename=up(f"{v}/x")
    ),
    "absolute name of the best": lambda c, v: c["callbacks"]["best_checkpoint"].update(
        filename=f"{v}/x"
    ),
    "folder of the best": lambda c, v: c["callbacks"]["best_checkpoint"].update(dirpath=v),
    "positional": lambda c, v: c["callbacks"].update(
        best={
            "_target_": "pytorch_lightning.callbacks.ModelCheckpoint",
            "_args_": [v],
            "monitor": "val/accuracy",
        }
    ),
    "name of a table": lambda c, v: c.update(
        logger={
            "csv": {
                "_target_": "pytorch_lightning.loggers.CSVLogger",
                "name": up(v),
                "version": "x",
            }
        }
    ),
    "version of a table": lambda c, v: c.update(
        logger={
            "csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "name": "a", "version": v}
        }
    ),
    "folder of a table": lambda c, v: c.update(
        logger={"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": v}}
    ),
    "folder of curves": lambda c, v: c.update(
        logger={
            "tb": {
                "_target_": "pytorch_lightning.loggers.TensorBoardLogger",
                "save_dir": ".",
                "sub_dir": v,
            }
        }
    ),
    "folder of our curves": lambda c, v: c.update(
        logger={
            "tb": {
                "_target_": "vision_lab.loggers.tensorboard.ResumableTensorBoardLogger",
                "folder": v,
            }
        }
    ),
    "profiler": lambda c, v: c["trainer"].update(
        profiler={"_target_": "pytorch_lightning.profilers.SimpleProfiler", "_args_": [v, "x"]}
    ),
    "name of a profile": lambda c, v: c["trainer"].update(
        profiler={
            "_target_": "pytorch_lightning.profilers.SimpleProfiler",
            "filename": up(f"{v}/x"),
        }
    ),
    "root of the trainer": lambda c, v: c["trainer"].update(default_root_dir=v),
    "download": lambda c, v: c["data"].update(
        train={
            "_target_": "torchvision.datasets.MNIST",
            "_partial_": True,
            "root": v,
            "download": True,
        }
    ),
    "our download": lambda c, v: c["data"].update(
        root=v,
        source={
            "_target_": "vision_lab.data.formats.torchvision_download.labeled_images",
            "root": v,
            "dataset": {"_target_": "torchvision.datasets.MNIST", "_partial_": True},
        },
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_written_elsewhere(
    command: Command, gift: Callable, tmp_path: Path, writer: str
):
    folder = gift(lambda config: WRITERS[writer](config, victim(tmp_path)))
    for name in ("result.json", "status.json"):
        (folder / name).unlink()
    for mode in COMMANDS:
        outcome = command(*COMMANDS[mode])
        assert not Path(victim(tmp_path)).exists(), mode
        assert outcome.code in (1, 2)
        assert "Traceback" not in outcome.err


def test_output_folders_are_not_taken_from_a_stored_config(command: Command, gift: Callable):
    """Checkpoints and early stopping are taken from the run, their locations are not."""

    def change(config: dict[str, Any]) -> None:
        callbacks = config["callbacks"]
        callbacks["ema"] = {
            "_target_": "pytorch_lightning.callbacks.EMAWeightAveraging",
            "decay": 0.9,
        }
        stopping = {"monitor": "${task.monitor}", "mode": "${task.monitor_mode}", "patience": 3}
        callbacks["stop"] = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", **stopping}
        config["logger"] = {
            "csv": {
                "_target_": "pytorch_lightning.loggers.CSVLogger",
                "name": "csv",
                "version": "a",
            }
        }

    gift(change)
    outcome = command("run=gift", "name=new")
    assert outcome.code == 0, outcome.err
    assert Path("outputs/new/checkpoints/best.ckpt").is_file()
    assert Path("outputs/new/csv/a/metrics.csv").is_file()
    assert {path.name for path in Path().iterdir()} == {"a.png", "gift", "outputs"}


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A folder elsewhere that must not change."""
    folder = tmp_path / "precious"
    folder.mkdir()
    for name in ("20240101.png", "00000.png", "0.png", "a.png", "notes.txt", "epoch=001.png"):
        (folder / name).write_bytes(b"mine" * 100)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("run", "link", "words"),
    [
        ("made", "predict/seed-0/samples", ("mode=predict", "run=gift", "mode.num_samples=2")),
        ("made", "predict/seed-0", ("mode=predict", "run=gift", "mode.num_samples=2")),
        ("made", "predict", ("mode=predict", "run=gift", "mode.num_samples=2")),
        ("made", "samples", ("resume=gift",)),
        ("masks", "predict/masks", ("mode=predict", "run=gift", "source=a.png")),
        ("masks", "predict/overlays", ("mode=predict", "run=gift", "source=a.png")),
        ("labels", "images", ("resume=gift",)),
        ("labels", "checkpoints", ("resume=gift",)),
        ("labels", "evaluate", ("mode=evaluate", "run=gift")),
    ],
)
def test_links_to_folders_are_not_followed(
    command: Command, gift: Callable, precious: Path, run: str, link: str, words: tuple[str, ...]
):
    folder = gift(run=run)
    for name in ("result.json", "status.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / link, ignore_errors=True)
    (folder / link).parent.mkdir(parents=True, exist_ok=True)
    (folder / link).symlink_to(precious)
    outcome = command(*words)
    assert outcome.code in (1, 2)
    assert "link" in outcome.err
    assert link in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "link", ["events.out.tfevents.1.evil", ".lock", "status.json", "metrics.csv"]
)
def test_links_to_files_are_not_followed(
    command: Command, gift: Callable, precious: Path, link: str
):
    folder = gift()
    for name in ("result.json", "status.json", link):
        (folder / name).unlink(missing_ok=True)
    (folder / link).symlink_to(precious / "notes.txt")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    state["resume"]["logs"] = {link: 0}
    torch.save(state, folder / "checkpoints" / "last.ckpt")
    outcome = command("resume=gift")
    assert outcome.code in (1, 2)
    assert link in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "reference",
    [
        "${names_from:vision_lab.data.bundled.names.read_names,/etc/passwd}",
        "${names_from:os.system,touch evil}",
        "${oc.env:SECRET}",
    ],
)
def test_references_read_no_secrets(command: Command, gift: Callable, secret: str, reference: str):
    gift(lambda config: config["callbacks"]["hparams"]["hparams"].update(secret=reference))
    for mode in COMMANDS:
        outcome = command(*COMMANDS[mode], *(("name=own",) if mode == "train" else ()))
        assert outcome.code == 2
        assert "this interpolation is from the run folder" in outcome.err
    assert not Path("outputs/own").exists()


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit the memory to two gigabytes more than now."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2_000_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


BOMB = "".join(
    f"{letter}: &{letter} [{','.join([f'*{chr(ord(letter) - 1)}'] * 9)}]\n"
    for letter in "bcdefghij"
)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + BOMB

SPEC = {
    "target_type": "labels",
    "class_names": ["a", "b"],
    "num_classes": 2,
    "channels": 1,
    "mean": [0.5],
    "std": [0.5],
}


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("config.yaml", BOMB, "config.yaml is damaged: it uses the alias *a: write the value instead"),
        ("config.yaml", "[" * 20_000, "config.yaml is damaged: it is nested more than 50 levels deep"),
        ("config.yaml", "a: &a\n  b: *a\n", "config.yaml is damaged: it uses the alias *a"),
        ("config.yaml", "a: 2020-01-01\n", "config.yaml is damaged: it contains a date"),
        ("config.yaml", "a: !!python/object/apply:os.system [ls]\n", "config.yaml is damaged: it is not YAML"),
        ("config.yaml", "x" * 11_000_000, "config.yaml is damaged: it has more than 10,000,000 bytes"),
        ("config.yaml", b"\xff\xfe", "config.yaml is damaged: it is not UTF-8"),
        ("data_spec.json", json.dumps(SPEC | {"image_size": [10**6, 10**6]}), "such images takes"),
        ("data_spec.json", json.dumps(SPEC | {"image_size": [32.5, 32]}), "image_size=[32.5,32]: type [height,width]"),
        ("data_spec.json", json.dumps(SPEC | {"image_size": [32, 32], "channels": 10**9}), "channels=1000000000: type a"),
        ("data_spec.json", json.dumps(SPEC | {"image_size": [32, 32], "mean": ["a"]}), "mean=[a]: type a list of numbers"),
        ("data_spec.json", "[" * 200_000, "data_spec.json is damaged: it is nested more than 50 levels deep"),
        ("data_spec.json", "{}", "data_spec.json is invalid: target_type is missing"),
        ("overrides.yaml", "choices: [1]", "choices must be names of files in conf/"),
    ],
)  # fmt: skip
def test_small_run_files_do_not_fill_memory(
    command: Command,
    gift: Callable,
    little_memory: None,
    file: str,
    content: str | bytes,
    text: str,
):
    folder = gift()
    (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    outcome = command("mode=evaluate", "run=gift")
    assert outcome.code in (1, 2)
    assert text in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (BOMB + "names: [*j]\n", "data.yaml cannot be read: it uses the alias *a"),
        (
            "names: {100000000: x, 0: y}\n",
            "data.yaml has a class 100000000: the maximum is 100,000 classes",
        ),
        ("names: {x: y}\n", "names must be a list of text, or a mapping of integers to text"),
        ("names: [[a], b]\n", "names must be a list of text"),
    ],
)
def test_small_annotation_files_do_not_fill_memory(
    command: Command, tmp_path: Path, little_memory: None, content: str, text: str
):
    from tests.data import annotation_files

    root = annotation_files.yolo(tmp_path / "data")
    (root / "data.yaml").write_text(content)
    outcome = command("task=detect", "data=yolo_txt", f"data.root={root}", *FAST_ANY_MODEL)
    assert outcome.code == 1
    assert text in outcome.err


def test_values_of_a_stored_config_have_limits(command: Command, gift: Callable):
    gift(lambda config: config["data"].update(num_workers=3000))
    assert "data.num_workers=3000: this machine has" in command("mode=evaluate", "run=gift").err


def test_latents_with_a_huge_declared_size_are_refused(
    command: Command, gift: Callable, little_memory: None, tmp_path: Path
):
    import io
    import zipfile

    gift(run="made")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 100)}
    )
    with zipfile.ZipFile(tmp_path / "latents.npz", "w") as archive:
        archive.writestr("latents.npy", header.getvalue())
    outcome = command("mode=predict", "run=gift", "source=latents.npz")
    assert outcome.code == 1
    assert (
        "this is not a latents.npz written by mode=predict: latents.npy claims to contain [1000000000, 100] numbers"
        in outcome.err
    )


def test_displayed_text_is_escaped(command: Command, tmp_path: Path):
    """Names with markup of Rich, terminals and formulas are displayed unchanged."""
    names = ["[/b]", "[red]x[/red]", "$\\frac{", "a\x1b]0;title\x07b", "<img src=x>"]
    for index, name in enumerate(names):
        folder = tmp_path / "imgs" / name.replace("/", "\u2215")
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32), (40 * index,) * 3).save(folder / f"p[{number}.png")
    words = (
        "data=folder",
        "data.root=imgs",
        "data.spec.image_size=[32,32]",
        "data.num_workers=0",
        "name=own",
    )
    outcome = command(*words, *FAST_ANY_MODEL)
    assert outcome.code == 0, outcome.err
    for mode in (("mode=evaluate",), ("mode=predict", "source=imgs")):
        outcome = command(*mode, "run=outputs/own")
        assert outcome.code == 0, outcome.err
        assert "written to outputs/own" in outcome.out
        assert "\x1b" not in outcome.out
        assert "\x07" not in outcome.out
    assert "[red]x[\u2215red]" in outcome.out
    assert "a\\x1b]0;title\\x07b" in outcome.out
