"""Two CPU processes equal one with twice the batch size, in one run folder."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.builders import Outcome
from tests.processes import fork_command
from vision_lab.data.bundled.scenes import Scenes
from vision_lab.run_folders.folder import Run


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(
    tmp_path: Path, make_folder: Callable[..., Path]
):
    root = make_folder(classes=("ash", "beech", "cedar"), count=17)
    data = (
        "data=folder",
        f"data.root={root}",
        "data.spec.image_size=[16,16]",
        "data.num_workers=0",
        "augment=flip",
    )
    words = (
        *data,
        "model=squeezenet1_1",
        "trainer.max_epochs=2",
        "+model.network.dropout=0.0",
        "optimizer=sgd",
    )
    for name, extra in (
        ("one", ("trainer=cpu", "data.batch_size=4")),
        ("two", ("trainer=ddp_cpu", "data.batch_size=2")),
    ):
        done = fork_command(tmp_path, *words, *extra, f"name={name}", "optimizer.lr=0.02")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written to outputs/") == 1
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["one", "two"]
    results = [
        json.loads((tmp_path / "outputs" / name / "result.json").read_text())
        for name in ("one", "two")
    ]
    # 51 images, a tenth held out twice: 5, which two processes share as 3 and 2, in two batches each
    assert [sum(c["samples"] for c in result["per_class"].values()) for result in results] == [5, 5]
    tables = []
    for name in ("one", "two"):
        with (tmp_path / "outputs" / name / "metrics.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == len(tables[1]) == 2
    for one, two in zip(*tables, strict=True):
        for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert float(one[metric]) == pytest.approx(float(two[metric]), rel=1e-3), metric
    losses = []
    for name in ("one", "two"):
        with (tmp_path / "outputs" / name / "sample_losses.csv").open(newline="") as file:
            losses.append({row["sample"]: float(row["loss"]) for row in csv.DictReader(file)})
    assert len(losses[0]) == 51
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    evaluated = fork_command(tmp_path, "mode=evaluate", "run=outputs/two")  # by two processes again
    assert evaluated.returncode == 0, evaluated.stderr
    assert "bit-exactly the result reported after training" in evaluated.stdout
    events = list((tmp_path / "outputs" / "two").glob("events.*"))
    assert len(events) == len(list((tmp_path / "outputs" / "one").glob("events.*")))
    checkpoints = sorted(
        path.name for path in (tmp_path / "outputs" / "two" / "checkpoints").iterdir()
    )
    assert checkpoints == ["best.ckpt", "last.ckpt", "previous.ckpt"]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_processes_evaluate_the_pixels_of_each_image_once(tmp_path: Path):
    """7 images, of which two processes get 4 and 3; one process gives the same metrics."""
    words = (
        "task=segment",
        "head.decoder_channels=[16,16,16,16]",
        "data.num_images.train=8",
        "data.num_images.val=7",
        "data.num_images.test=7",
        "data.spec.image_size=[64,64]",
        "data.batch_size=2",
        "trainer.max_epochs=1",
        "trainer.devices=2",
    )
    done = fork_command(tmp_path, *words, "trainer=ddp_cpu", "name=two")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "outputs/two/result.json").read_text())
    scenes = Scenes(split="test", num_images=7, image_size=(64, 64), label_set="grouped", seed=0)
    pixels = torch.stack([scenes[index][1] for index in range(7)])
    counted = {
        name: found["pixels"] for name, found in result["per_class"].items() if found["pixels"]
    }
    names = ("background", "top", "trouser", "dress", "shoe", "bag")
    assert counted == {name: n for k, name in enumerate(names) if (n := int((pixels == k).sum()))}
    alone = fork_command(tmp_path, "mode=evaluate", "run=outputs/two", "trainer=cpu")
    assert alone.returncode == 0, alone.stderr
    again = json.loads((tmp_path / "outputs/two/evaluate/test.json").read_text())
    for name in ("test/miou", "test/dice", "test/pixel_accuracy"):
        assert again["metrics"][name] == pytest.approx(result["metrics"][name], abs=2e-3), name


@pytest.mark.slow
def test_two_processes_evaluate_the_boxes_of_each_image_once(tmp_path: Path):
    """7 images, as above; detections and ground truth of both are complete."""
    words = (
        "task=detect",
        "model=resnet20",
        "head.channels=16",
        "head.num_convs=1",
        "data.num_images.train=16",
        "data.num_images.val=7",
        "data.num_images.test=7",
        "data.spec.image_size=[64,64]",
        "data.batch_size=2",
        "trainer.max_epochs=2",
        "trainer.devices=2",
        "optimizer.lr=0.01",
    )
    done = fork_command(tmp_path, *words, "trainer=ddp_cpu", "name=two")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "outputs/two/result.json").read_text())
    documents = []
    for trainer in ((), ("trainer=cpu",)):
        evaluated = fork_command(tmp_path, "mode=evaluate", "run=outputs/two", *trainer)
        assert evaluated.returncode == 0, evaluated.stderr
        folder = tmp_path / "outputs/two/evaluate"
        documents.append(
            [
                json.loads((folder / f"test{name}.json").read_text())
                for name in ("", "_ground_truth", "_detections")
            ]
        )
    two, one = documents
    assert two[0]["metrics"].keys() == one[0]["metrics"].keys()
    for name, value in two[0]["metrics"].items():
        assert value == pytest.approx(result["metrics"][name], abs=1e-6)
        if name != "test/loss":  # a mean over batches, which differ
            assert one[0]["metrics"][name] == pytest.approx(value, abs=1e-6), name
    assert [image["id"] for image in two[1]["images"]] == list(range(1, 8))
    assert one[1] == two[1]
    assert len(one[2]) == len(two[2]) > 7


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_sweep_of_two_processes_each_survives_a_kill(tmp_path: Path):
    words = (
        "trainer=ddp_cpu",
        "trainer.devices=2",
        "debug=fast",
        "trainer.max_epochs=2",
        "optimizer=sgd",
        "callbacks.resume_checkpoint.every_n_steps=2",
        "+callbacks.kill._target_=tests.kill_callback.Kill",
    )
    assert fork_command(tmp_path, *words, "optimizer.lr=0.1", "name=alone").returncode == 0
    sweep = ("-m", *words, "optimizer.lr=0.1,0.01", "name=x")
    killed = fork_command(tmp_path, *sweep, KILL="step:5", DEATH="SIGKILL")
    assert killed.returncode == -9, killed.stderr  # in the first run; the sweep ends
    done = fork_command(tmp_path, *sweep)
    assert done.returncode == 0, done.stderr
    assert "2 runs" in done.stdout
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["alone", "x"]
    found = sorted(path.name for path in (tmp_path / "outputs/x").glob("[!.]*"))
    assert found == ["multirun.yaml", "optimizer.lr-0.01", "optimizer.lr-0.1"]
    for run in found[1:]:
        assert Run(tmp_path / "outputs/x" / run).state == "finished"
    for file in ("metrics.csv", "model.pth"):
        resumed = (tmp_path / "outputs/x/optimizer.lr-0.1" / file).read_bytes()
        assert resumed == (tmp_path / "outputs/alone" / file).read_bytes()


@pytest.mark.slow
def test_a_nan_loss_in_one_process_ends_both(tmp_path: Path):
    (tmp_path / "broken_loss.py").write_text(
        "from vision_lab.tasks.classification import ClassificationTask\n\n"
        "class Loss(ClassificationTask):\n"
        "    def losses(self, outputs, batch):\n"
        "        losses = super().losses(outputs, batch)\n"
        "        wrong = self.training and self.trainer.global_step == 4 and self.global_rank == 1\n"
        "        return {**losses, 'loss': losses['loss'] * (float('nan') if wrong else 1)}\n"
    )
    words = (
        "trainer=ddp_cpu",
        "debug=fast",
        "trainer.max_epochs=3",
        "task._target_=broken_loss.Loss",
        "name=x",
    )
    done = fork_command(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.count("error: at step 5 the loss is not finite: loss nan") == 1
    assert "Traceback" not in done.stderr
    assert Run(tmp_path / "outputs/x").error == "at step 5 the loss is not finite: loss nan"


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_sweep_continues_after_an_unreadable_file_in_one_process(
    tmp_path: Path, make_folder: Callable[..., Path]
):
    """The second process of the first job fails, and Lightning must not end the sweep."""
    root = make_folder(classes=("ash", "beech"), count=20)
    for path in sorted(root.rglob("*.png"))[:36]:
        path.write_bytes(b"is not an image")
    words = (
        "-m",
        "trainer=ddp_cpu",
        "data=folder",
        f"data.root={root}",
        "data.spec.image_size=[16,16]",
        "debug=fast",
        "data.batch_size=1",
        "data.on_error=raise,skip",
        "name=x",
        "logger=none",
        "model=resnet20",
    )
    done = fork_command(tmp_path, *words)
    assert done.returncode == 1
    stop, skip = (
        Run(tmp_path / "outputs/x" / f"data.on_error-{name}") for name in ("raise", "skip")
    )
    assert stop.state == "failed"
    assert "1 image cannot be read:" in stop.error
    assert skip.state == "finished"
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "outputs").rglob("process-*"))


def test_options_for_gpus_are_refused_on_cpus(command: Callable[..., Outcome]):
    outcome = command("trainer=ddp_cpu", "trainer.sync_batchnorm=true", "name=x")
    assert outcome.code == 1
    assert (
        "torch synchronizes batch norm on GPUs only: type trainer.sync_batchnorm=false"
        in outcome.err
    )


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_processes_train_a_gan_as_one_and_sample_alike(tmp_path: Path):
    """Gradients are averaged; there is one run, with the metrics of one process."""
    words = (
        "task=generate",
        "model.generator_channels=4",
        "model.discriminator_channels=4",
        "task.num_samples=31",
        "data.samples_per_class=8",
        "trainer.max_epochs=2",
        "trainer.limit_val_batches=3",
        "trainer.limit_test_batches=3",
        "trainer.accumulate_grad_batches=2",
        "task.n_critic=2",
        "model.conditioning=projection",
        "task.r1_weight=0.1",
        "trainer.gradient_clip_val=1.0",
        "+callbacks.apart._target_=alike.Alike",
    )
    (tmp_path / "alike.py").write_text(
        "import pytorch_lightning as pl, torch\n\n"
        "class Alike(pl.Callback):\n"
        "    def on_train_batch_end(self, trainer, task, *_):\n"
        "        own = torch.nn.utils.parameters_to_vector(task.network.parameters())\n"
        "        if trainer.world_size > 1:\n"
        "            others = [torch.empty_like(own) for _ in range(trainer.world_size)]\n"
        "            torch.distributed.all_gather(others, own.detach())\n"
        "            assert all(torch.equal(own, other) for other in others)\n"
    )
    done = fork_command(tmp_path, *words, "trainer=ddp_cpu", "data.batch_size=4", "name=two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to outputs/") == 1
    run = tmp_path / "outputs/two"
    assert len(list((run / "samples").glob("epoch=*.png"))) == 3
    with (run / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    words = (
        "mode=evaluate",
        "run=outputs/two",
        "trainer.limit_test_batches=1.0",
        "callbacks.apart=null",
    )
    both = []
    for trainer in ("trainer=ddp_cpu", "trainer=cpu"):
        evaluated = fork_command(tmp_path, *words, trainer)
        assert evaluated.returncode == 0, evaluated.stderr
        both.append(json.loads((run / "evaluate/test.json").read_text())["metrics"])
    assert both[0].keys() == both[1].keys()
    for name, value in both[0].items():
        assert both[1][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
