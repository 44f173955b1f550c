"""Wrong values are reported before anything is built, all of them together."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from tests.builders import FAST_ANY_MODEL, Outcome, composed
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.signatures import get_parameters

pytestmark = pytest.mark.usefixtures("hydra_resolvers")

Command = Callable[..., Outcome]

ALL = (
    "task",
    "model",
    "head",
    "loss",
    "data",
    "sampler",
    "augment",
    "diffaugment",
    "features",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "mode",
)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("seed=-1", "seed=-1: type a whole number from 0 to 4294967295"),
        ("seed=abc", "seed=abc: type a whole number from 0 to 4294967295"),
        ("seed=100000000000000000000", "seed=100000000000000000000: type a whole number from 0"),
        ("seed=null", "seed=null: type a whole number"),
        ("seed=1.5", "seed=1.5: type a whole number"),
        ("seed=true", "seed=true: type a whole number"),
        ("force=maybe", "force=maybe: type true or false"),
        ("trust=abc", "trust=abc: type a list of packages"),
        ("trust=null", "trust=null: type a list of packages"),
        ("optimizer.lr=-1", "optimizer.lr=-1: type a number of 0 or more"),
        ("optimizer.lr=abc", "optimizer.lr=abc: type a number of 0 or more"),
        ("optimizer.lr=nan", "optimizer.lr=nan: type a number of 0 or more"),
        ("optimizer.lr=inf", "optimizer.lr=inf: type a number of 0 or more"),
        ("optimizer.lr=null", "optimizer.lr=null: type a number of 0 or more"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1: type a number of 0 or more"),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: type two numbers of 0 or more, below 1"),
        ("data.batch_size=abc", "data.batch_size=abc: type a whole number of 1 or more"),
        ("data.num_workers=-1", "data.num_workers=-1: type a whole number of 0 or more or auto"),
        ("data.num_workers=3000", "data.num_workers=3000: this machine has"),
        ("data.on_error=ignore", "data.on_error=ignore: type raise or skip"),
        (f"data.batch_size={10**400}", "...: type a whole number of 1 or more"),
        (f"data.spec.image_size=[8,{10**400}]", "...: type [height,width] in pixels"),
        ("data.holdout_fraction=0.9", "data.holdout_fraction=0.9: type a number above 0, below 0.5"),
        ("data.samples_per_class=0", "data.samples_per_class=0: type a whole number of 1 or more or null"),
        ("data.spec.class_names=[a]", "task=classify requires data with at least two classes, but this has 1: a"),
        ("task=segment data.spec.class_names=[a]", "task=segment requires data with at least two classes, but this has 1: a"),
        ("task.target_type=[labels]", "task.target_type=[labels]: type labels, masks, boxes, none or images"),
        ("head.target_type=5", "head.target_type=5: type labels, masks, boxes, none or images"),
        ("optimizer.lr_reference_batch_size=0", "optimizer.lr_reference_batch_size=0: type a whole number of 1 or more or null"),
        ("~augment.train", "augment.train=null: type a list of objects, each with its _target_"),
        ("augment.eval=[[]]", "augment.eval=[[]]: type a list of objects, each with its _target_"),
        ("callbacks.progress_bar=5", "callbacks.progress_bar=5: type null, or an object with its _target_"),
        ("+logger.x=[a]", "logger.x=[a]: type null, or an object with its _target_"),
        ("data.spec.class_names=[1,2]", "data.spec.class_names=[1,2]: type a list of names, numbers in quotes"),
        ("data.spec.image_size=64", "data.spec.image_size=64: type [height,width] in pixels"),
        ("data.spec.image_size=[0,8]", "data.spec.image_size=[0,8]: type [height,width] in pixels"),
        ("data.spec.image_size=[100000,100000]", "data.spec.image_size=[100000,100000]: a batch of 64 such images"),
        ("data.spec.channels=0", "data.spec.channels=0: type a whole number from 1 to 1024"),
        ("data.spec.std=[0]", "data.spec.std=[0]: type a list of numbers above 0"),
        ("trainer.max_epochs=abc", "trainer.max_epochs=abc: type a whole number of 1 or more, or -1, or null"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5: type a whole number"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: type a whole number"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: type a whole number of 1 or more"),
        ("trainer.devices=abc", "trainer.devices=abc: type a whole number of 1 or more, -1 for all, auto"),
        ("trainer.devices=1000 trainer.accelerator=cpu", "trainer.devices=1000: this machine has"),
        ("trainer.precision=7", "trainer.precision=7: type 32-true, 16-mixed or bf16-mixed"),
        ("trainer.precision=fp16", "trainer.precision=fp16: type 32-true, 16-mixed or bf16-mixed"),
        ("trainer.strategy=nonsense", "trainer.strategy=nonsense: type one of auto, ddp"),
        ("trainer.accelerator=abacus", "trainer.accelerator=abacus: type auto, "),
        ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch=0: type a whole number of 1 or more"),
        ("trainer.limit_test_batches=0", "trainer.limit_test_batches=0: type a number of batches, 1 or more"),
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches=0: type a number of batches, 1 or more"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: type a number of 0 or more or null"),
        ("trainer.deterministic=maybe", "trainer.deterministic=maybe: type true or false, or warn, or null"),
        ("+task.label_smothing=0.1", "task.label_smothing: ClassificationTask has no such argument; its arguments: aux_weight, "),
        ("loss.label_smoothing=1.0", "loss.label_smoothing=1.0: type a number of 0 or more, below 1"),
        ("task.class_weights=balanced", "task.class_weights=balanced: type auto, null or a list of numbers of 0 or"),
        ("task.class_weights=[-1,1]", "task.class_weights=[-1,1]: type auto, null or a list of numbers of 0 or more"),
        ("task.monitor_mode=minimize", "task.monitor_mode=minimize: type min or max"),
        ("task.monitor=1", "task.monitor=1: type text"),
        ("scheduler=cosine scheduler.warmup_fraction=5", "scheduler.warmup_fraction=5: type a number from 0 to 1"),
        ("scheduler=multistep scheduler.milestones=[0.5,2]", "scheduler.milestones=[0.5,2]: type a list, each a number fr"),
        ("scheduler=plateau scheduler.patience=-1", "scheduler.patience=-1: type a whole number of 0 or more"),
        ("callbacks.resume_checkpoint.every_n_minutes=-1", "callbacks.resume_checkpoint.every_n_minutes=-1: type a number of 0 or more or null"),
        ("callbacks.image_logger.max_images=100000", "callbacks.image_logger.max_images=100000: type a whole number from 0 to 1000"),
        ("callbacks=early_stopping callbacks.early_stopping.patience=0", "callbacks.early_stopping.patience=0: type"),
        ("callbacks=ema callbacks.ema.decay=2", "callbacks.ema.decay=2: type a number from 0 to 1"),
        ("model.network.depth=1000000010", "model.network.depth=1000000010: type a whole number from 8 to 1202"),
        ("model.stem=big", "model.stem=big: type auto, imagenet or small"),
        ("mode=evaluate mode.split=dev", "mode.split=dev: type train, val or test"),
        ("mode=predict mode.tiles=maybe", "mode.tiles=maybe: type true or false"),
        ("task=detect head.channels=30", "head.channels=30: type a whole number from 1 to 16384, a multiple of 8"),
        ("task=detect head.num_convs=0", "head.num_convs=0: type a whole number from 1 to 64"),
        ("task=detect head=ssd head.channels=1", "head.channels=1: type a whole number from 2 to 16384"),
        ("task=detect head=fcos head.score_threshold=-0.1", "head.score_threshold=-0.1: type a number from 0 to 1"),
        ("task=detect head=retinanet head.channels=null", "head.channels=null: type a whole number from 1 to 16384"),
        ("task=detect head=retinanet head.norm=batch", "head.norm=batch: type group or null"),
        ("task=detect head=faster_rcnn head.detections_per_image=0", "head.detections_per_image=0: type a whole num"),
        ("task=detect task.report.draw_score_threshold=2", "task.report.draw_score_threshold=2: type a number from 0 to 1"),
        ("task=segment head.decoder_channels=[]", "head.decoder_channels=[]: type a list of whole numbers of 1 or more"),
        ("task=segment data.source.label_set=${model.network}", "'_partial_': True}: type grouped or all"),
        ("optimizer.lr=${model.network}", "'depth': 20}: type a number of 0 or more"),
        ("task.class_weights={_target_:torch.nn.Identity}", "type auto, null or a list of numbers of 0 or more"),
        ("trainer.plugins=x", "trainer.plugins=x: type objects by name, each with its _target_"),
        ("trainer.profiler=x", "trainer.profiler=x: type simple or advanced"),
        ("task=segment data.num_images.train=0", "data.num_images.train=0: type a whole number from 1 to 1000000"),
        ("task=segment data.label_set=some", "data.label_set=some: type grouped or all"),
        ("task=segment loss.weights.dice=nan", "loss.weights.dice=nan: type a number of 0 or more"),
        ("task=segment loss=none", "task=segment requires a loss: type loss=cross_entropy or cross_entropy_dice or"),
        ("task=segment loss.weights=1", "loss.weights=1: type a mapping"),
        ("task=generate loss=focal", "type loss=bce or hinge or wgan_gp, or task=classify"),
        ("task=generate task.ema_decay=1.0", "task.ema_decay=1.0: type a number of 0 or more, below 1"),
        ("task=generate task.r1_weight=-1", "task.r1_weight=-1: type a number of 0 or more"),
        ("task=generate task.num_samples=3", "task.num_samples=3: type a whole number of 4 or more"),
        ("task=generate task.n_critic=0", "task.n_critic=0: type a whole number of 1 or more"),
        ("task=generate trainer.gradient_clip_val=abc", "trainer.gradient_clip_val=abc: type a number of 0 or more"),
        ("task=generate +diffaugment.blur=2", "diffaugment.blur=2: type null, or an object with its _target_"),
        ("task=generate model.latent_dim=0", "model.latent_dim=0: type a whole number from 1 to 16384"),
        ("task=generate model.conditioning=embedding", "model.conditioning=embedding: type concatenation, projection or n"),
        ("task=generate callbacks.gan_monitor.action=shout", "callbacks.gan_monitor.action=shout: type warn or stop"),
        ("data=voc_detect task=detect data.root=. data.pixel_offset=2", "data.pixel_offset=2: type 0 or 1"),
        ("augment=pad_crop augment.train.0.pixels=-1", "augment.train.0.pixels=-1: type a whole number of 0 or more"),
        ("task=segment sampler=balanced", "task=segment learns from masks: type sampler=shuffle, or task=classify"),
        ("+sampler.size=3", "sampler.size: shuffled_sampler has no such argument; its arguments: num_samples, replacement"),
        ("augment=mosaic task=detect augment.train.0.p=2", "augment.train.0.p=2: type a number from 0 to 1"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported(
    words: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    settings = [word for word in words.split(" ") if not word.startswith("augment.train.")]
    config = composed(*settings)
    for word in words.split(" "):  # Hydra sets no items of lists
        if word.startswith("augment.train."):
            key, _, value = word.partition("=")
            _, _, index, name = key.split(".")
            config["augment"]["train"][int(index)][name] = int(value)
    with pytest.raises(ConfigurationError) as caught:
        check_config(config, ALL)
    assert text in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_all_errors_are_reported_together(command: Command):
    words = (
        "seed=-1",
        "optimizer.lr=nan",
        "data.batch_size=0",
        "trainer.precision=7",
        "scheduler.pct_start=2",
    )
    outcome = command("name=x", *words)
    assert outcome.code == 1
    keys = [line.removeprefix("error: ").split("=")[0] for line in outcome.err.splitlines()]
    assert sorted(keys) == sorted(word.split("=")[0] for word in words)
    assert not Path("outputs/x").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        *((f"{group}=null", f"{group}=null: type {group}=<one of ") for group in ALL),
        ("~model", "~model: a group has exactly one option: type model=<one of alexnet"),
        ("model@head=resnet18", "model@head=resnet18: a group has exactly one option"),
        ("=5", "=5: the key is missing: type <key>=5"),
        ("-m model=resnet20,null", "model=resnet20,null: type model=<one of"),
        ("-m experiment=unet,null", "experiment=unet,null: null is the default of experiment"),
        ("-m optimizer.lr=", "optimizer.lr=: type a number of 0 or more"),
        ("hydra.run.dir=/proc/x", "/proc/x: No such file or directory: type hydra.run.dir=<a writable folder"),
        ("+scheduler=multistep", "+scheduler=multistep: scheduler already has an option: type scheduler=multistep"),
        ("debug=[1,2]", "debug=[1,2]: type debug=<one of fast, overfit, profile>"),
        ("model=50", "model=50: type model=<one of alexnet"),
        ("head=[]", "head=[]: type head=<one of deeplabv3"),
        ("head=interval(0,1)", "head=interval(0,1): type head=<one of deeplabv3"),
        ("trainer.max_epochs=${nothing}", "trainer.max_epochs cannot be resolved: Interpolation key 'nothing'"),
        ("--resolve", "--resolve requires --cfg job: type --cfg job --resolve"),
        ("--cfg all --resolve", "--resolve requires --cfg job: type --cfg job --resolve"),
        ("+callbacks.terminate_on_nan._partial_=true", "callbacks.terminate_on_nan is a partial, but must be a Callback"),
        ("trainer.plugins.checkpoints._target_=torch.nn.Identity", "checkpoints is a Identity, but must be a CheckpointIO or"),
        ("+callbacks.x={_target_:pytorch_lightning.Trainer,plugins:{a:{_target_:torch.nn.Identity}}}",
         "callbacks.x cannot be built: "),
        ("--config-dir nope", "--config-dir: there is no folder nope"),
        ("name=replaced", "name=replaced: this folder is reserved for replaced runs: type another name="),
        ("task.monitor=val/nothing", "task.monitor=val/nothing: there is no such metric: type one of val/accuracy"),
        ("callbacks=early_stopping callbacks.early_stopping.monitor=val/acc",
         "callbacks.early_stopping.monitor=val/acc: there is no such metric: type one of val/accuracy"),
        ("trainer.accelerator=tpu", "trainer"),
        ("model.network.depth=21", "model.network.depth=21: type 6n + 2, such as 20, 32, 44, 56 or 110"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_reported_without_a_traceback(command: Command, words: str, text: str):
    outcome = command(*words.split(" "), *FAST_ANY_MODEL)
    assert outcome.code in (1, 2)
    assert text in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(Path().rglob("config.yaml"))


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_a_null_choice_can_be_typed(command: Command, group: str):
    plain = command("--cfg", "job")
    assert command(f"{group}=null", "--cfg", "job").out == plain.out


def test_arguments_of_base_classes_are_accepted():
    class Base:
        def __init__(self, *, size: Annotated[int, "pixels"], **others: Any) -> None: ...

    class Part(Base):
        def __init__(self, *, mode: Literal["a", "b"], **others: Any) -> None: ...

    parameters, takes_others = get_parameters(Part)
    assert set(parameters) == {"mode", "size"}
    assert takes_others


def test_an_error_names_the_key_that_was_typed():
    config = composed("task=segment", "data.label_set=all")
    assert config["data"]["source"]["label_set"] == "all"
    assert config.origin("data.source.label_set") == "data.label_set"
    changed = config.updated({"data.label_set": "grouped"})
    assert changed["data"]["source"]["label_set"] == "grouped"
    assert config["data"]["source"]["label_set"] == "all"


def test_a_config_with_other_values_is_checked():
    """Plain values without composition, as a Python program has them."""
    values = {"seed": 0, "optimizer": {"_target_": "torch.optim.SGD", "lr": -1, "_partial_": True}}
    with pytest.raises(ConfigurationError, match=r"^optimizer\.lr=-1: type a number of 0 or more$"):
        check_config(Config(values), ["optimizer"])
