"""A run that is killed anywhere and repeated is bit-exactly the uninterrupted run."""

import json
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from tests.builders import Outcome
from tests.kill_callback import Killed
from tests.processes import fork_command
from vision_lab.cli.main import main
from vision_lab.run_folders.folder import Run

Command = Callable[..., Outcome]

EVERYTHING = (
    "model=densenet121",  # of its kind the network quickest to make small
    "model.network._target_=torchvision.models.DenseNet",
    "+model.network.block_config=[1,1,1,1]",
    "+model.network.growth_rate=8",
    "+model.network.num_init_features=8",
    "+model.network.drop_rate=0.2",
    "augment=pad_crop",
    "callbacks=ema",
    "callbacks.ema.decay=0.8",
    "trainer=cpu",
    "trainer.accumulate_grad_batches=2",
    "trainer.max_epochs=4",
    "trainer.limit_train_batches=9",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "trainer.log_every_n_steps=1",
    "data.batch_size=4",
    "callbacks.resume_checkpoint.every_n_steps=3",
    "callbacks.image_logger=null",
    "callbacks.progress_bar=null",
    "seed=3",
    "+callbacks.early_stopping={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss, patience: "
    "2, min_delta: 1.0}",  # stops after the third epoch
    "+callbacks.kill._target_=tests.kill_callback.Kill",
    "trainer.plugins.checkpoints._target_=tests.kill_callback.KillingCheckpoints",
)
"""Dropout, batch norm, augmentation, a step-wise schedule, accumulation, EMA, best so far, early stopping."""

PLATEAU = (
    *EVERYTHING,
    "scheduler=plateau",
    "scheduler.patience=0",
    "callbacks.early_stopping=null",
)

SECTIONS = (
    *EVERYTHING,
    "+trainer.val_check_interval=4",
    "callbacks.early_stopping=null",
)
"""Validation within the epoch."""

SEGMENT = (
    *EVERYTHING,
    "task=segment",
    "data.num_images.train=24",
    "data.num_images.val=4",
    "data.num_images.test=4",
    "data.spec.image_size=[64,64]",
    "augment=scale_jitter",
    "trainer.max_epochs=3",
    "head=deeplabv3",
    "head.output_stride=16",
    "head.atrous_rates=[6,12,18]",
)
"""Masks that move with their images, an auxiliary head, dropout in the head, weights from the training masks."""

DETECT = (
    *EVERYTHING,
    "task=detect",
    "data.num_images.train=24",
    "data.num_images.val=4",
    "data.num_images.test=4",
    "data.spec.image_size=[64,64]",
    "augment=mosaic",
    "trainer.max_epochs=3",
    "head=faster_rcnn",
    "head.channels=16",
    "head.rpn_post_nms_top_n=20",
    "head.box_batch_size_per_image=20",
)
"""Boxes that move with their images, four images in one, losses that draw samples, in validation too."""


GENERATE = (
    "task=generate",
    "trainer=cpu",
    "model.generator_channels=4",
    "model.discriminator_channels=4",
    "data.batch_size=4",
    "data.samples_per_class=20",
    "model.conditioning=projection",
    "model.spectral_norm=true",
    "loss=hinge",
    "task.r1_weight=0.1",
    "scheduler=cosine",
    "task.n_critic=2",
    "diffaugment=all",
    "trainer.gradient_clip_val=1.0",
    "trainer.accumulate_grad_batches=2",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=9",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "trainer.log_every_n_steps=1",
    "seed=3",
    "task.num_samples=20",
    "task.num_preview=8",
    "callbacks.resume_checkpoint.every_n_steps=3",
    "+callbacks.kill._target_=tests.kill_callback.Kill",
    "trainer.plugins.checkpoints._target_=tests.kill_callback.KillingCheckpoints",
)
"""Two networks with an optimizer each, steps of two batches by turns, power iterations, an averaged generator."""


RECONSTRUCT = (
    "task=reconstruct",
    "model=vae",
    "trainer=cpu",
    "model.base_channels=4",
    "model.encoder.base_channels=4",
    "data.batch_size=4",
    "data.samples_per_class=20",
    "task.anomalies=[bag]",
    "scheduler=cosine",
    "trainer.accumulate_grad_batches=2",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=9",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "trainer.log_every_n_steps=1",
    "seed=3",
    "task.num_samples=20",
    "task.num_preview=8",
    "callbacks.resume_checkpoint.every_n_steps=3",
    "+callbacks.kill._target_=tests.kill_callback.Kill",
    "trainer.plugins.checkpoints._target_=tests.kill_callback.KillingCheckpoints",
)
"""Codes that are drawn in each step, images from the same codes after each epoch, a class left out."""

ROWS = (
    *RECONSTRUCT[2:3],
    "model=row_lstm",
    "model.network.hidden_size=8",
    *RECONSTRUCT[5:7],
    *RECONSTRUCT[8:16],
    *RECONSTRUCT[18:],
)
"""A recurrent network."""

SMALL_SCENES = (
    "task=detect",
    "data.num_images.train=24",
    "data.num_images.val=4",
    "data.num_images.test=4",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "data.batch_size=4",
    "seed=3",
    "callbacks.image_logger=null",
    "callbacks.resume_checkpoint.every_n_steps=3",
    "+callbacks.kill._target_=tests.kill_callback.Kill",
    "trainer.plugins.checkpoints._target_=tests.kill_callback.KillingCheckpoints",
)

RCNN = (
    *SMALL_SCENES,
    "model=resnet20",
    "model.network.depth=8",
    "head=rcnn",
    "head.window_size=16",
    "data.spec.image_size=[64,64]",
)
"""Proposals of selective search, which are cached by the first process, and samples of them."""

DPM = (
    *SMALL_SCENES,
    "model=dpm",
    "head=none",
    "model.max_scale=0.4",
    "model.num_rounds=3",
    "data.num_images.train=12",
)
"""Rounds instead of steps, with windows of the rounds before in the checkpoint."""

CASCADE = (*SMALL_SCENES, "model=haar_cascade", "head=none", "model.num_rounds=3")
"""Stages that decide which windows the next round collects."""


@pytest.fixture(autouse=True)
def _event_files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let event files of one second and process sort as they were written: 100, 101, not 9, 10."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(100))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[tuple[str, ...]], Path]]:
    """Train an uninterrupted run of some words, once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(words: tuple[str, ...]) -> Path:
        if words not in made:
            folder = tmp_path_factory.mktemp("alone")
            with chdir(folder):
                assert main([*words, "name=alone"]) == 0
            made[words] = folder / "outputs" / "alone"
        return made[words]

    return run


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    seen = EventAccumulator(str(run), size_guidance={"scalars": 0})
    seen.Reload()
    tags = [tag for tag in seen.Tags()["scalars"] if tag != "train/images_per_second"]
    return {tag: [(event.step, event.value) for event in seen.Scalars(tag)] for tag in tags}


def assert_same(run: Path, other: Path) -> None:
    assert (run / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert (run / "model.pth").read_bytes() == (other / "model.pth").read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, other)]
    for key in ("metrics", "per_class", "monitored", "epochs", "steps"):
        assert results[0][key] == results[1][key], key
    assert curves(run) == curves(other)
    samples = [
        {file.name: file.read_bytes() for file in (folder / "samples").glob("*")}
        for folder in (run, other)
    ]
    assert samples[0] == samples[1]


@pytest.mark.parametrize(
    ("words", "deaths"),
    [
        pytest.param(EVERYTHING, ["step:1"], marks=pytest.mark.slow),  # before the first checkpoint
        (EVERYTHING, ["step:8", "last:2"]),
        pytest.param(EVERYTHING, ["step:13", "step:1", "step:4"], marks=pytest.mark.slow),
        pytest.param(EVERYTHING, ["validation:3"], marks=pytest.mark.slow),
        pytest.param(EVERYTHING, ["epoch:1", "epoch:1"], marks=pytest.mark.slow),
        pytest.param(EVERYTHING, ["step:9", "last:1"], marks=pytest.mark.slow),
        pytest.param(EVERYTHING, ["best:1", "last:4"], marks=pytest.mark.slow),
        pytest.param(
            EVERYTHING, ["test:1", "test:2"], marks=pytest.mark.slow
        ),  # after early stopping has decided
        pytest.param(PLATEAU, ["epoch:2", "step:2", "validation:1"], marks=pytest.mark.slow),
        pytest.param(SECTIONS, ["step:5", "validation:2", "step:13"], marks=pytest.mark.slow),
        pytest.param(SEGMENT, ["step:4", "validation:2", "test:1"], marks=pytest.mark.slow),
        pytest.param(DETECT, ["step:4", "validation:2", "test:1"], marks=pytest.mark.slow),
        pytest.param(
            GENERATE,
            ["step:4", "validation:2", "epoch:1", "last:2", "test:1"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            RECONSTRUCT,
            ["step:4", "validation:2", "epoch:1", "last:2", "test:1"],
            marks=pytest.mark.slow,
        ),
        pytest.param(ROWS, ["step:4", "validation:2", "test:1"], marks=pytest.mark.slow),
        pytest.param(RCNN, ["step:4", "validation:2", "test:1"], marks=pytest.mark.slow),
        pytest.param(DPM, ["step:4", "validation:2", "test:1"], marks=pytest.mark.slow),
        pytest.param(CASCADE, ["step:4", "validation:2", "test:1"], marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(value).replace(":", "") if isinstance(value, list) else "",
)
def test_a_killed_run_resumes_bit_exactly(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    alone: Callable,
    words: tuple[str, ...],
    deaths: list[str],
):
    left_alone = alone(words)
    for number, death in enumerate(deaths):
        monkeypatch.setenv("KILL", death)
        with pytest.raises(Killed):
            command(*words, "name=killed", f"data.num_workers={number % 2}")
        assert Run(Path("outputs/killed")).state == "failed"
    monkeypatch.delenv("KILL")
    outcome = command(*words, "name=killed")
    assert outcome.code == 0, outcome.err
    assert ("resuming" in outcome.out) == (deaths not in (["step:1"], ["last:1"]))
    assert_same(Path("outputs/killed"), left_alone)
    assert not list(Path("outputs/killed").rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "step"), [("0", 4), ("60", 3)])
def test_a_checkpoint_every_n_minutes(
    command: Command, monkeypatch: pytest.MonkeyPatch, minutes: str, step: int
):
    """With 0 after each optimizer step; with 60 only at the end of the epoch."""
    words = (
        "debug=fast",
        "trainer=cpu",
        "logger=none",
        "trainer.max_epochs=2",
        f"callbacks.resume_checkpoint.every_n_minutes={minutes}",
        "+callbacks.kill._target_=tests.kill_callback.Kill",
        "name=x",
    )
    monkeypatch.setenv("KILL", "step:5")
    with pytest.raises(Killed):
        command(*words)
    monkeypatch.delenv("KILL")
    assert f"resuming     from step {step} " in command(*words).out


def test_the_compared_runs_contain_results(alone: Callable):
    """The configurations above have the states that could be lost."""
    rows = (alone(EVERYTHING) / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 3  # early stopping stopped it before its four epochs
    assert json.loads((alone(EVERYTHING) / "result.json").read_text())["steps"] == 3 * 5
    rates = {value for _, value in curves(alone(PLATEAU))["train/lr"]}
    assert len(rates) > 1  # the plateau was reached


@pytest.mark.slow
def test_a_validation_within_an_epoch_is_an_event(alone: Callable):
    assert len(curves(alone(SECTIONS))["val/loss"]) == 4 * 2


@pytest.mark.slow
def test_sigkill_in_other_processes(alone: Callable, tmp_path: Path):
    left_alone = alone(EVERYTHING)
    for number, kill in enumerate(("step:7", "last:2", "validation:2", "best:1", "test:1")):
        words = (*EVERYTHING, "name=killed", f"data.num_workers={number % 3}")
        assert fork_command(tmp_path, *words, KILL=kill, DEATH="SIGKILL").returncode == -9
        assert Run(tmp_path / "outputs/killed").state == "running"
    done = fork_command(tmp_path, *EVERYTHING, "name=killed")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "outputs/killed", left_alone)
