"""The command line: errors, run folders, sweeps, and classes of a user."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.builders import FAST, FAST_ANY_MODEL, Outcome
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]


def test_a_mistyped_key_gets_a_suggestion(command: Command):
    outcome = command("optimizer.lrr=0.1")
    assert outcome.code == 2
    assert outcome.err == (
        "error: optimizer.lrr: there is no such key. Did you mean optimizer.lr?\n"
        "  Keys of optimizer: lr, betas, weight_decay, lr_reference_batch_size\n"
        "  To add it anyway, type +optimizer.lrr=...\n"
    )
    assert outcome.out == ""


def test_all_mistyped_words_are_reported_together(command: Command):
    outcome = command("modle=resnet50", "data.batchsize=3", "seed=1")
    assert outcome.code == 2
    assert "modle: there is no such key or group. Did you mean mode or model" in outcome.err
    assert "data.batchsize: there is no such key. Did you mean data.batch_size or " in outcome.err
    assert "seed" not in outcome.err.splitlines()[0]
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("flag", [(), ("-m",)])
def test_a_mistyped_choice_lists_all(command: Command, flag: tuple[str, ...]):
    outcome = command(*flag, "model=resnet51,resnet18" if flag else "model=resnet51")
    assert outcome.code == 2
    assert (
        "model=resnet51: there is no such model. Did you mean resnet56 or resnet50 or resnet18?"
        in outcome.err
    )
    assert "model is one of: alexnet, autoencoder, conv_encoder" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_key_of_another_choice_names_that_choice(command: Command):
    outcome = command("data.root=somewhere")
    assert outcome.code == 2
    assert (
        "data.root: there is no such key. It is a key of data=camvid or cifar10 or" in outcome.err
    )


def test_an_option_without_its_group_is_suggested_with_it(command: Command):
    assert "lr: there is no such key or group. Did you mean optimizer.lr" in command("lr=0.1").err


def test_a_value_that_hydra_cannot_read(command: Command):
    outcome = command("name=a(b")
    assert outcome.code == 2
    assert "name=a(b: the value cannot be parsed: quote it, as in name='\"a(b\"'" in outcome.err


def test_the_whole_config_is_checked_before_anything_is_built(command: Command):
    outcome = command(
        "data=folder",
        "+optimizer.momentun=0.9",
        "+model.network.widht=3",
        "head.target_type=boxes",
        "task.monitor=???",
    )
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "error: task.monitor is missing: type task.monitor=...",
        "model.network.widht: CifarResNet has no such argument; its arguments: depth, num_classes",
        "head=linear is for boxes, but task=classify learns from labels: type head=linear",
        "data.root is missing: type data.root=...",
        "optimizer.momentun: AdamW has no such argument; its arguments: amsgrad, betas, capturable, differentiable, "
        "eps, foreach, fused, lr, maximize, weight_decay",
    ] or set(outcome.err.splitlines()) >= {"data.root is missing: type data.root=..."}
    for part in (
        "task.monitor is missing",
        "widht",
        "momentun",
        "data.root is missing",
        "head=linear is for boxes",
    ):
        assert part in outcome.err
    assert not Path("outputs").exists() or not list(Path("outputs").rglob("*.*"))


def test_a_class_that_cannot_be_imported(command: Command):
    outcome = command("model.network._target_=nowhere.Net", *FAST_ANY_MODEL)
    assert outcome.code == 1
    assert (
        "model.network._target_=nowhere.Net cannot be found: No module named 'nowhere'"
        in outcome.err
    )


def test_a_run_writes_the_documented_files(command: Command):
    outcome = command("name=first", "debug=fast", "trainer=cpu", "seed=3")
    assert outcome.code == 0, outcome.err
    folder = Path("outputs/first")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {path for path in found if path.startswith(("events.", "hparams/events."))}
    assert found - events - {"uncommitted.diff"} == {
        ".lock",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "config_resolved.yaml",
        "data_fingerprint.json",
        "environment.json",
        "metrics.csv",
        "model.pth",
        "overrides.yaml",
        "images/test_confusion.png",
        "images/test_mistakes.png",
        "images/test_precision_recall.png",
        "images/test_predictions.png",
        "images/test_roc.png",
        "images/val_confusion.png",
        "images/val_mistakes.png",
        "images/val_predictions.png",
        "result.json",
        "data_spec.json",
        "speed.csv",
        "status.json",
    }
    assert len(events) == 3
    run = Run(folder)
    assert run.state == "finished"
    assert run.choices["model"] == "resnet20"
    assert run.choices["debug"] == "fast"
    assert "${" in (folder / "config.yaml").read_text()
    assert "${" not in (folder / "config_resolved.yaml").read_text()
    result = run.result
    assert result is not None
    assert set(result["metrics"]) == {
        f"test/{name}" for name in ("accuracy", "top5", "f1", "loss", "calibration_error")
    }
    assert result["parameters"] == 269434
    assert result["checkpoint"] == "checkpoints/best.ckpt"
    assert "model       resnet20, head linear" in outcome.out
    assert "fashion_mini: 5,400 train, 600 val, 1,000 test; 10 classes, 1x32x32" in outcome.out
    assert "epoch 1/1" in outcome.out
    assert "written to outputs/first" in outcome.out


def test_options_of_a_dataset_are_known_and_mistyped_ones_are_not(command: Command):
    small = (
        "data.num_images={train: 8, val: 2, test: 2}",
        "data.spec.image_size=[32,32]",
        "model.stem=imagenet",
    )
    assert (
        command("task=segment", "data.label_set=all", "data.seed=3", *small, *FAST_ANY_MODEL).code
        == 0
    )
    outcome = command("task=segment", "+data.clases=all", *FAST_ANY_MODEL)
    assert "data.clases: DataModule has no such argument" in outcome.err


def test_the_resolved_config_is_shown(command: Command, make_folder: Callable[..., Path]):
    outcome = command("data=folder", f"data.root={make_folder()}", "--cfg", "job", "--resolve")
    assert outcome.code == 0, outcome.err
    assert "    class_names:\n    - ash\n    - beech\n    - cedar\n" in outcome.out
    assert "num_classes: 3" in outcome.out
    scenes = command("task=segment", "data.label_set=all", "--cfg", "job", "--resolve")
    assert "    - background\n    - t-shirt/top\n" in scenes.out


def test_class_names_are_read_again_by_each_command(
    command: Command, make_folder: Callable[..., Path]
):
    words = ("data=folder", f"data.root={make_folder()}", "--cfg", "job", "--resolve")
    assert "num_classes: 3" in command(*words).out
    shutil.copytree(Path("images/ash"), "images/elm")
    assert "num_classes: 4" in command(*words).out


def test_without_a_name_the_folder_has_the_choices_and_the_time(command: Command):
    assert command(*FAST).code == 0
    (folder,) = Path("outputs/classify/resnet20-linear-fashion_mini").iterdir()
    assert Run(folder).state == "finished"


@pytest.mark.slow
def test_a_sweep_continues_after_a_failed_job(command: Command):
    outcome = command(
        "-m", "model=resnet20,inception_v3,resnet32", "seed=1", "name=two", *FAST_ANY_MODEL
    )
    assert outcome.code == 1
    folders = {path.name: Run(path) for path in Path("outputs/two").glob("[!.]*/")}
    assert {name: run.state for name, run in folders.items()} == {
        "model-resnet20": "finished",
        "model-inception_v3": "failed",
        "model-resnet32": "finished",
    }
    assert folders["model-inception_v3"].error == (
        "data.spec.image_size=[32,32]: type [299,299], or [75,75] model.stem=small: inception_v3 does "
        "not support smaller images"
    )
    assert "outputs/two: 3 runs" in outcome.out
    assert "model-inception_v3 failed: data.spec.image_size=[32,32]: type [299,299]" in outcome.out


def test_a_failed_run_records_its_error(command: Command, tmp_path: Path):
    (tmp_path / "failing_task.py").write_text(
        dedent("""\
            from vision_lab.tasks.classification import ClassificationTask

            class Broken(ClassificationTask):
                def losses(self, outputs, batch):
                    raise RuntimeError("the loss broke")
            """)
    )
    with pytest.raises(RuntimeError, match="the loss broke"):
        command("name=x", "task._target_=failing_task.Broken", *FAST)
    run = Run(Path("outputs/x"))
    assert run.state == "failed"
    assert run.error == "the loss broke"


def test_a_users_own_model_and_data_from_the_current_folder(command: Command, tmp_path: Path):
    (tmp_path / "own_parts.py").write_text(
        dedent("""\
            import torch
            from torch import nn

            class Net(nn.Sequential):
                def __init__(self, num_classes, width=8):
                    super().__init__(
                        nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(width, num_classes),
                    )

            class Shades:
                def __init__(self, count):
                    self.count = count

                def __len__(self):
                    return self.count

                def __getitem__(self, index):
                    return torch.full((3, 16, 16), 120 * (index % 2), dtype=torch.uint8), index % 2

            def shades(split):
                return {"train": Shades(64), "val": None, "test": Shades(20)}[split]
            """)
    )
    for group, name, text in (
        (
            "model",
            "mine",
            """\
            # My own network
            defaults: [_backbone]
            network: {_target_: own_parts.Net, _partial_: true, width: 4}
            """,
        ),
        (
            "data",
            "shades",
            """\
            # Dark and light
            defaults: [_data]
            spec:
              target_type: labels
              class_names: [dark, light]
              image_size: [16, 16]
              channels: 3
              mean: [0.2]
              std: [0.2]
            source: {_target_: own_parts.shades}
            batch_size: 8
            """,
        ),
    ):
        (tmp_path / "my_conf" / group).mkdir(parents=True)
        (tmp_path / "my_conf" / group / f"{name}.yaml").write_text(dedent(text))
    words = (
        "--config-dir",
        "my_conf",
        "model=mine",
        "data=shades",
        "model.stem=imagenet",
        "name=own",
        "trainer=cpu",
    )
    outcome = command(*words, "trainer.max_epochs=3", "logger=none", "optimizer.lr=0.05")
    assert outcome.code == 0, outcome.err
    result = Run(Path("outputs/own")).result
    assert result is not None
    assert result["metrics"]["test/accuracy"] == 1.0
    help_text = command("--help", "--config-dir", "my_conf").out
    assert "My own network" in help_text
    assert "Dark and light" in help_text
    assert "there is no such model. Did you mean mine" in command(*words[:2], "model=min").err
    evaluated = command(
        "--config-dir", "my_conf", "mode=evaluate", "run=outputs/own", "trust=[own_parts]"
    )
    assert evaluated.code == 0, evaluated.err
    shutil.rmtree(tmp_path / "my_conf")
    assert (
        command("mode=evaluate", "run=outputs/own", "trust=[own_parts]").code == 0
    )  # the run keeps the class names of the files


AWKWARD = "my data = 1, #2 (é)"


def test_paths_of_any_characters(
    command: Command, make_folder: Callable[..., Path], tmp_path: Path, monkeypatch
):
    root = make_folder(AWKWARD)
    words = ("data=folder", f"data.root={root}", "data.spec.image_size=[32,32]", "name=odd", *FAST)
    assert command(*words).code == 0
    run = Run(Path("outputs/odd"))
    assert run.config["data"]["root"] == str(root)
    monkeypatch.setenv("HOME", str(tmp_path))
    moved = tmp_path / "outputs" / AWKWARD
    shutil.move("outputs/odd", moved)
    outcome = command("mode=predict", f"run=~/outputs/{AWKWARD}", f"source=~/{AWKWARD}/ash")
    assert outcome.code == 0, outcome.err
    assert (moved / "predict" / "predictions.csv").read_text().count("\n") == 13
    assert command("mode=predict", f"run={moved}", f"source={AWKWARD}/*/00*.png").code == 0
    assert (moved / "predict" / "predictions.csv").read_text().count("\n") == 31


def test_hydras_own_flags_pass_through(command: Command):
    shown = command("--cfg", "job", "--resolve", "--package", "optimizer")
    assert shown.code == 0
    assert "lr: " in shown.out
    assert command("--cfg", "job", "--resolve").code == 0
    assert (
        command("model=resnet18", "--cfg", "job", "--package", "model.network")
        .out.strip()
        .endswith("_target_: torchvision.models.resnet18\n_partial_: true")
    )


@pytest.mark.slow
def test_debug_overfit_fits_its_batches(command: Command):
    assert (
        command(
            "name=over", "debug=overfit", "trainer=cpu", "logger=none", "trainer.max_epochs=40"
        ).code
        == 0
    )
    rows = (Path("outputs/over") / "metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    last = dict(zip(header, rows[-1].split(","), strict=True))
    assert float(last["train/accuracy"]) > 0.95


@pytest.mark.slow
def test_debug_profile_writes_its_table(command: Command):
    words = (
        "name=slow",
        "debug=profile",
        "trainer=cpu",
        "logger=none",
        "trainer.limit_train_batches=2",
    )
    assert command(*words, "trainer.limit_val_batches=1", "trainer.limit_test_batches=1").code == 0
    assert "run_training_batch" in next(Path("outputs/slow/profile").iterdir()).read_text()


def test_status_is_json_with_a_time(command: Command):
    assert command("name=first", *FAST).code == 0
    status = json.loads(Path("outputs/first/status.json").read_text())
    assert status["state"] == "finished"
    assert status["time"].endswith("+00:00")
