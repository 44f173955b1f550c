"""The config of a run folder from someone else cannot run code."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.builders import FAST, Outcome
from vision_lab.cli.main import main
from vision_lab.config.groups import CONFIG_DIR
from vision_lab.config.resolution import resolve_config
from vision_lab.config.trust import find_untrusted, is_allowed_call
from vision_lab.core.documents import dump_yaml
from vision_lab.core.errors import ConfigurationError

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    with chdir(folder):
        assert main([*FAST, "name=x"]) == 0
    return folder / "outputs" / "x"


@pytest.fixture
def changed_run(command: Command, run: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Copy it with a changed config."""

    def change(how: Callable[[dict[str, Any]], None], to: str = "outputs/x") -> Path:
        folder = Path(shutil.copytree(run, to))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        how(config)
        (folder / "config.yaml").write_text(dump_yaml(config))
        return folder

    return change


TOUCH = {"_target_": "os.system", "command": "touch stolen"}


def planted(group: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config[group].update({key: value})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (planted("optimizer", "_target_", "os.system"), "optimizer._target_=os.system"),
        (planted("callbacks", "mine", TOUCH), "callbacks.mine._target_=os.system"),
        (planted("augment", "eval", [TOUCH]), "augment.eval._target_=os.system"),
        (planted("model", "classifier", "${stolen}"), "stolen._target_=os.system"),
        (
            planted("head", "_target_", "vision_lab.run_folders.folder.os.system"),
            "head._target_=vision_lab.run_folders.folder.os.system",
        ),
        (
            planted("head", "_target_", "torch.nn.modules.module.functools.partial"),
            "functools.partial",
        ),
        (
            planted("model", "classifier", {"_target_": "torch.hub.load", "_partial_": True}),
            "torch.hub.load",
        ),
        (
            planted("optimizer", "_target_", "torch.utils.collect_env.run"),
            "optimizer._target_=torch.utils.collect_env.run",
        ),
        (
            planted(
                "callbacks",
                "mine",
                {"_target_": "vision_lab.training.checkpoint_io.save", "path": "stolen"},
            ),
            "checkpoint_io.save",
        ),
        (
            planted("optimizer", "_target_", "hydra.utils.get_method"),
            "optimizer._target_=hydra.utils.get_method",
        ),
        (planted("task", "_target_", "${oc.decode:'os.system'}"), "task._target_=${oc.decode:"),
        (
            planted("head", "_target_", "pytorch_lightning.LightningModule.load_from_checkpoint"),
            "load_from_checkpoint",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_injected_code_is_refused(
    command: Command, changed_run: Callable, change: Callable, place: str
):
    def both(config: dict[str, Any]) -> None:
        config["stolen"] = TOUCH
        config["trust"] = [
            "os",
            "functools",
            "torch",
        ]  # what a folder says of whom to trust does not count
        change(config)

    folder = changed_run(both)
    for mode in ("mode=evaluate", "mode=predict", "mode=train"):
        outcome = command(mode, f"run={folder}", "source=.")
        assert outcome.code == 2
        assert place in outcome.err.replace(".0.", ".")
        assert "this is from the run folder and" in outcome.err
        assert not Path("stolen").exists()
    assert not Path("outputs/x/evaluate").exists()


def test_a_list_of_defaults_in_a_stored_config_is_refused(command: Command, changed_run: Callable):
    folder = changed_run(
        lambda config: config["optimizer"].update(defaults=[{"override /hydra/launcher": "basic"}])
    )
    assert "is not a composed config: optimizer" in command("mode=evaluate", f"run={folder}").err


def hub(folder: Path) -> dict[str, Any]:
    """Write a repository beside the config that writes a file when it is loaded."""
    evil = folder / "evil"
    evil.mkdir()
    (evil / "hubconf.py").write_text("open('stolen', 'w')\ndef go(*a, **k): pass\n")
    return {
        "_target_": "torch.hub.load",
        "repo_or_dir": str(evil.absolute()),
        "model": "go",
        "source": "local",
    }


def refused(command: Command, folder: Path, text: str) -> None:
    for mode in ("mode=evaluate", "mode=predict", "mode=train"):
        outcome = command(mode, f"run={folder}", "source=.")
        assert outcome.code == 2, outcome.out
        assert text in outcome.err
        assert not Path("stolen").exists()


def test_a_group_given_as_text_is_refused(command: Command, changed_run: Callable):
    """Hydra would parse it as YAML with a defaults list."""
    folder = changed_run(lambda _: None)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["logger"] = hub(folder)
    config["optimizer"] = (
        "defaults:\n- /logger@_global_.hydra.callbacks.evil: _saved\n- _self_\n"
        + yaml.safe_dump(config["optimizer"])
    )
    (folder / "config.yaml").write_text(dump_yaml(config))
    refused(command, folder, "is not a composed config: optimizer")


def test_a_reference_within_a_reference_is_refused(command: Command, changed_run: Callable):
    folder = changed_run(lambda _: None)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    node = hub(folder)
    inner = ",".join(f"{key}:'{value}'" for key, value in node.items())
    config["task"]["class_weights"] = "\\${oc.create:{" + inner + "}}"
    (folder / "config.yaml").write_text(dump_yaml(config))
    refused(command, folder, "task.class_weights=")


def test_choices_that_are_not_names_are_refused(command: Command, changed_run: Callable):
    folder = changed_run(lambda config: config.pop("callbacks"))
    choices_file = yaml.safe_load((folder / "overrides.yaml").read_text())
    for value in ("${oc.env:HOME}", "../outside", "/tmp/outside"):
        choices_file["choices"]["model"] = value
        (folder / "overrides.yaml").write_text(yaml.safe_dump(choices_file))
        refused(command, folder, "choices must be names of files in conf/")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            planted(
                "callbacks",
                "progress",
                {"_target_": "torchvision.models._api.WeightsEnum.get_state_dict"},
            ),
            "_api",
        ),
        (
            planted(
                "data", "train", {"_target_": "torchvision.datasets.Kinetics", "_partial_": True}
            ),
            "Kinetics",
        ),
        (
            planted(
                "logger",
                "mine",
                {
                    "_target_": "vision_lab.loggers.tensorboard.ResumableTensorBoardLogger",
                    "folder": "/tmp",
                },
            ),
            "folder",
        ),
        (
            planted(
                "callbacks",
                "best",
                {
                    "_target_": "vision_lab.callbacks.checkpointing.BestCheckpoint",
                    "dirpath": "/tmp",
                },
            ),
            "dirpath",
        ),
    ],
    ids=["weights", "archive", "events", "checkpoints"],
)
def test_downloads_and_writes_elsewhere_are_refused(
    command: Command, changed_run: Callable, change: Callable, text: str
):
    refused(command, changed_run(change), text)


def test_a_mistyped_key_with_run_gets_a_suggestion(command: Command, changed_run: Callable):
    folder = changed_run(lambda _: None)
    outcome = command("mode=evaluate", f"run={folder}", "trainer.max_epoch=1")
    assert outcome.err.startswith(
        "error: trainer.max_epoch: there is no such key. Did you mean trainer.max_epochs"
    )


@pytest.mark.parametrize("file", ["config.yaml", "overrides.yaml", "data_spec.json"])
@pytest.mark.parametrize("content", ["", "[1", "{1: 2"])
def test_damaged_files_of_a_run_folder_are_named(
    command: Command, changed_run: Callable, file: str, content: str
):
    folder = changed_run(lambda _: None)
    (folder / file).write_text(content)
    outcome = command("mode=evaluate", f"run={folder}")
    assert outcome.code == 2
    assert file in outcome.err
    assert "Traceback" not in outcome.err


def test_own_packages_are_trusted_by_name(command: Command, changed_run: Callable, tmp_path: Path):
    (tmp_path / "my_optim.py").write_text(
        "from torch.optim import AdamW\n\nclass Mine(AdamW):\n    pass\n"
    )
    folder = changed_run(lambda config: config["optimizer"].update(_target_="my_optim.Mine"))
    refused = command("mode=evaluate", f"run={folder}")
    assert "optimizer._target_=my_optim.Mine: this is from the run folder" in refused.err
    assert "type trust=[my_optim]" in refused.err
    assert command("mode=evaluate", f"run={folder}", "trust=[my_optim]").code == 0
    # What the command line itself chooses is its own, and what it leaves out is gone.
    callbacks = changed_run(
        lambda config: config["callbacks"].update(mine={"_target_": "my_optim.Mine"}), "outputs/y"
    )
    assert command("mode=evaluate", f"run={callbacks}").code == 2
    assert command("mode=evaluate", f"run={callbacks}", "callbacks.mine=null").code == 0
    assert (
        "comes with"
        not in command("-m", "mode=evaluate", f"run={folder}", "optimizer=sgd,adam").err
    )
    assert command("mode=evaluate", f"run={callbacks}", "callbacks.mine={x: 1}").code == 2
    assert (
        command("mode=evaluate", f"run={callbacks}", "callbacks.mine._target_=my_optim.Mine").code
        == 2
    )
    assert command("mode=evaluate", f"run={folder}", "optimizer=sgd").code == 0
    assert command(*FAST, "name=own", "optimizer._target_=my_optim.Mine").code == 0


@pytest.mark.parametrize(
    ("target", "arguments", "admitted"),
    [
        ("torch.optim.SGD", {"lr": 0.1}, True),
        ("torch.nn.Linear", {"in_features": 3}, True),
        ("torchvision.transforms.v2.ColorJitter", {}, True),
        ("torchvision.models.regnet_y_400mf", {"num_classes": 3}, True),
        ("timm.create_model", {"model_name": "resnet18", "num_classes": 3}, True),
        ("pytorch_lightning.loggers.CSVLogger", {"name": "csv"}, True),
        # Reached through a module, or good for more than building parts.
        ("torch.nn.modules.module.os.system", {}, False),
        ("torch.nn.functional.F", {}, False),
        ("torch.load", {}, False),
        ("torch.hub.load", {}, False),
        ("torch.optim.lr_scheduler.ExponentialLR", {}, True),
        ("torch.optim.lr_scheduler.partial", {}, False),
        ("torchvision.models.get_weight", {}, False),
        ("torchvision.datasets.Kinetics", {}, False),
        ("torchvision.datasets.folder.pil_loader", {}, False),
        ("vision_lab.training.checkpoint_io.save", {}, False),
        ("vision_lab.modes.train.train", {}, False),
        ("vision_lab.run_folders.sweep.SweepCallback", {}, False),
        ("torchevil.SGD", {}, False),
        ("${x}", {}, False),
        ("", {}, False),
        (None, {}, False),
        (["torch.optim.SGD"], {}, False),
        # Arguments by which they write or fetch.
        ("torch.optim.SGD", {"_args_": []}, False),
        ("torchvision.models.resnet18", {"weights": "DEFAULT"}, False),
        ("torchvision.datasets.MNIST", {"train": True, "root": "/", "download": True}, False),
        (
            "vision_lab.data.formats.torchvision_download.labeled_images",
            {"root": "/", "download": True},
            False,
        ),
        (
            "vision_lab.data.formats.torchvision_download.labeled_images",
            {"root": "/", "download": "${data.download}"},
            True,
        ),
        ("timm.create_model", {"model_name": "hf-hub:x/y"}, False),
        ("timm.create_model", {"model_name": "x", "pretrained": True}, False),
        ("timm.create_model", {"model_name": "x", "checkpoint_path": "x"}, False),
        ("timm.models.resnet18", {}, False),
        ("pytorch_lightning.loggers.CSVLogger", {"save_dir": "/"}, False),
        ("pytorch_lightning.loggers.CSVLogger", {"name": "../x"}, False),
        ("pytorch_lightning.loggers.CSVLogger", {"name": ["x"]}, False),
        (
            "vision_lab.data.formats.torchvision_download.labeled_images",
            {"root": "/", "download": {"x": 1}},
            False,
        ),
        ("pytorch_lightning.loggers.CSVLogger", {"version": "${secret}"}, False),
        ("pytorch_lightning.loggers.MLFlowLogger", {"tracking_uri": "http://elsewhere"}, False),
        ("pytorch_lightning.loggers.TensorBoardLogger", {"save_dir": "."}, False),
        ("pytorch_lightning.callbacks.ModelCheckpoint", {}, False),
        ("pytorch_lightning.callbacks.EarlyStopping", {"monitor": "val/loss"}, True),
        ("pytorch_lightning.profilers.SimpleProfiler", {"filename": "../x"}, False),
        ("pytorch_lightning.profilers.SimpleProfiler", {"dirpath": "x"}, False),
        ("pytorch_lightning.Trainer", {"default_root_dir": "/"}, False),
        ("pytorch_lightning.Trainer", {"strategy": "deepspeed_stage_3_offload"}, False),
        ("pytorch_lightning.Trainer", {"strategy": "ddp", "devices": 2}, True),
        (
            "vision_lab.callbacks.checkpointing.BestCheckpoint",
            {"monitor": "x", "mode": "max"},
            True,
        ),
        ("vision_lab.callbacks.checkpointing.BestCheckpoint", {"filename": "../x"}, False),
        ("vision_lab.loggers.tensorboard.ResumableTensorBoardLogger", {"folder": "/"}, False),
    ],
)
def test_allowed_names_and_arguments(target: Any, arguments: dict[str, Any], admitted: bool):
    assert is_allowed_call(target, arguments) == admitted
    if isinstance(target, str) and target:
        assert is_allowed_call(target, arguments, [target.split(".")[0]]) == ("$" not in target)


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("${optimizer.lr}", True),
        ("${data.spec.class_names}", True),
        ("${hydra:runtime.output_dir}", False),
        ("${names_from:vision_lab.data.formats.image_folder.class_names,${data.root}}", True),
        ("${names_from:vision_lab.data.formats.image_folder.class_names,/etc}", False),
        ("${names_from:os.listdir,${data.root}}", False),
        ("${names_from:vision_lab.data.bundled.names.read_names,imagenet_classes.txt}", True),
        ("${names_from:vision_lab.data.bundled.names.read_names,/etc/passwd}", False),
        ("${oc.env:HOME}", False),
        ("${oc.${x}:HOME}", False),
        ("${oc.create:{_target_:os.system}}", False),
        ("${oc.select:a,b}", False),
        ("${oc.decode:a}", False),
        ("\\${oc.env:HOME}", False),
        ("a ${optimizer.lr}", False),
        ("${optimizer.lr}${optimizer.lr}", False),
        ("${hydra:job.name}", False),
        ("${", False),
    ],
)
def test_allowed_references(text: str, admitted: bool):
    assert (find_untrusted({"callbacks": {"a": [text]}}, trusted=["anything"]) == []) == admitted


def test_addresses_are_typed():
    config = {"data": {"root": "https://host/shards"}}
    (error,) = find_untrusted(config, trusted=[])
    assert error == (
        "data.root=https://host/shards: this address is from the run folder: type it yourself to "
        "connect to it"
    )
    assert find_untrusted(config, trusted=[], typed={"data.root"}) == []
    for root in ("~/shards", "s3://bucket/shards"):
        assert find_untrusted({"data": {"root": root}}, trusted=[]) == []
    source = "vision_lab.data.shards.dataset.sharded_samples"
    assert is_allowed_call(source, {"root": "${data.root}"})
    assert not is_allowed_call(source, {"root": "https://host/shards"})


def test_groups_of_the_command_line_are_trusted():
    config = {
        "logger": {
            "csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "/", "name": "x"}
        }
    }
    assert len(find_untrusted(config, trusted=[])) == 1
    assert find_untrusted(config, trusted=[], typed=["logger.csv.save_dir"]) == []
    # A mapping that is typed is merged with what the file has for it.
    assert len(find_untrusted(config, trusted=[], typed=["logger.csv"])) == 1
    transforms = {"augment": {"train": [TOUCH]}}
    assert find_untrusted(transforms, trusted=[], typed=["augment.train"]) == []


def test_every_choice_of_conf_is_trusted():
    """The config of a run of any choice is accepted."""
    files = [
        file
        for file in CONFIG_DIR.rglob("*.yaml")
        if file.parent.name
        not in ("hydra", "hydra_logging", "launcher", "sweeper", "mode", "search", "experiment")
    ]
    nodes = 0
    for file in files:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        content = (
            content
            if file.parent.name in ("task", "debug", "mode")
            else {file.parent.name: content}
        )
        assert find_untrusted(content, trusted=[]) == [], file
        nodes += file.read_text(encoding="utf-8").count("_target_:")
    assert len(files) == 180
    assert nodes == 202


KEYS = [f"{group}.{name}" for group in ("a", "b", "c") for name in ("x", "y", "z")]


def random_config(seed: int) -> dict[str, Any]:
    """Return nested references and targets; with odd seeds only allowed ones."""
    random = Random(seed)

    def value() -> Any:
        key = random.choice(KEYS)
        plain = [f"${{{key}}}", "torch.hub.load", "os.system", 7, [f"${{{key}}}", "torch.load"]]
        changing = [
            f"${{oc.select:{key},torch.hub.load}}",
            f"${{oc.env:VISION_LAB_TEST,{random.choice(['torch.nn.Identity', 'os.system'])}}}",
        ]
        return random.choice(plain if seed % 2 else [*plain, *changing])

    def target() -> Any:
        good = ["torch.nn.Identity", "torch.optim.SGD"]
        return random.choice(good if seed % 2 else [*good, "os.system", value()])

    def node() -> Any:
        inner = {"_target_": target(), "lr": value(), "nested": {"_target_": target()}}
        return random.choice([value(), inner, {"k": value(), "l": [value(), inner]}])

    return {group: {name: node() for name in ("x", "y", "z")} for group in ("a", "b", "c")}


def targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from targets(inner)


def test_what_is_built_is_what_was_checked(monkeypatch: pytest.MonkeyPatch):
    """Random references, whose values change in between."""
    admitted = built = refused = 0
    for seed in range(400):
        config = random_config(seed)
        if find_untrusted(config, trusted=[]):
            refused += 1
            continue
        monkeypatch.setenv("VISION_LAB_TEST", "torch.nn.Identity")
        try:
            values = resolve_config(OmegaConf.create(config)).values
        except ConfigurationError:  # it refers to itself
            continue
        before = repr(values)
        monkeypatch.setenv("VISION_LAB_TEST", "os.system")
        assert repr(values) == before
        called = list(targets(values))
        assert set(called) <= {"torch.nn.Identity", "torch.optim.SGD"}, seed
        admitted += 1
        built += len(called)
    assert refused > 100
    assert admitted > 50
    assert built > 500
