"""A stranger's run folder cannot run code."""

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import FAST, Outcome
from vision_lab import trust
from vision_lab.app import main

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    with chdir(folder):
        assert main([*FAST, "name=x"]) == 0
    return folder / "outputs" / "x"


@pytest.fixture
def strangers(command: Command, run: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """A copy of it with a changed config."""

    def change(how: Callable[[dict[str, Any]], None]) -> Path:
        folder = Path(shutil.copytree(run, "outputs/x"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        how(config)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return change


TOUCH = {"_target_": "os.system", "command": "touch stolen"}


def planted(group: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config[group].update({key: value})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (planted("optim", "_target_", "os.system"), "optim._target_=os.system"),
        (planted("callbacks", "mine", TOUCH), "callbacks.mine._target_=os.system"),
        (planted("augment", "eval", [TOUCH]), "augment.eval._target_=os.system"),
        (planted("model", "classifier", "${stolen}"), "model.classifier._target_=os.system"),
        (planted("head", "_target_", "vision_lab.runs.os.system"), "head._target_=vision_lab.runs.os.system"),
        (planted("head", "_target_", "torch.nn.modules.module.functools.partial"), "functools.partial"),
        (planted("model", "classifier", {"_target_": "torch.hub.load", "_partial_": True}), "torch.hub.load"),
        (planted("optim", "_target_", "torch.utils.collect_env.run"), "optim._target_=torch.utils.collect_env.run"),
        (
            planted("callbacks", "mine", {"_target_": "vision_lab.checkpoints.save", "path": "stolen"}),
            "checkpoints.save",
        ),
        (planted("optim", "_target_", "hydra.utils.get_method"), "optim._target_=hydra.utils.get_method"),
        (planted("task", "_target_", "${oc.decode:'os.system'}"), "task._target_=os.system"),
        (planted("head", "_target_", "pytorch_lightning.LightningModule.load_from_checkpoint"), "load_from_checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_planted_code_is_refused(command: Command, strangers: Callable, change: Callable, place: str):
    def both(config: dict[str, Any]) -> None:
        config["stolen"] = TOUCH
        config["trust"] = ["os", "functools", "torch"]  # what a folder says of whom to trust does not count
        change(config)

    folder = strangers(both)
    for mode in ("mode=evaluate", "mode=predict", "mode=train"):
        outcome = command(mode, f"run={folder}", "source=.")
        assert outcome.code == 1
        assert place in outcome.err.replace("[0]", "").replace(".0.", ".")
        assert "this comes with the run's folder and may run any code. Only if you trust whoever" in outcome.err
        assert not Path("stolen").exists()
    assert not Path("outputs/x/evaluate").exists()


def test_a_list_of_defaults_in_a_stored_config_is_refused(command: Command, strangers: Callable):
    folder = strangers(lambda config: config["optim"].update(defaults=[{"override /hydra/launcher": "basic"}]))
    assert "is not a composed config: optim" in command("mode=evaluate", f"run={folder}").err


def hub(folder: Path) -> dict[str, Any]:
    """A repository beside the config that writes a file when it is loaded."""
    evil = folder / "evil"
    evil.mkdir()
    (evil / "hubconf.py").write_text("open('stolen', 'w')\ndef go(*a, **k): pass\n")
    return {"_target_": "torch.hub.load", "repo_or_dir": str(evil.absolute()), "model": "go", "source": "local"}


def refused(command: Command, folder: Path, text: str, *, code: int = 1) -> None:
    for mode in ("mode=evaluate", "mode=predict", "mode=train"):
        outcome = command(mode, f"run={folder}", "source=.")
        assert outcome.code == code, outcome.out
        assert text in outcome.err
        assert not Path("stolen").exists()


def test_a_group_that_is_a_string_is_refused(command: Command, strangers: Callable):
    """Hydra would read it as YAML, with a list of defaults that puts another group among its own callbacks."""
    folder = strangers(lambda _: None)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["logger"] = hub(folder)
    config["optim"] = "defaults:\n- /logger@_global_.hydra.callbacks.evil: _saved\n- _self_\n" + yaml.safe_dump(
        config["optim"]
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    refused(command, folder, "is not a composed config: optim", code=2)


def test_a_reference_within_a_reference_is_refused(command: Command, strangers: Callable):
    folder = strangers(lambda _: None)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    node = hub(folder)
    inner = ",".join(f"{key}:'{value}'" for key, value in node.items())
    config["task"]["class_weights"] = "\\${oc.create:{" + inner + "}}"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    refused(command, folder, "task.class_weights: a reference within a reference comes with the run's folder")


def test_choices_that_are_no_names_are_refused(command: Command, strangers: Callable):
    folder = strangers(lambda config: config.pop("callbacks"))
    told = yaml.safe_load((folder / "overrides.yaml").read_text())
    for value in ("${oc.env:HOME}", "../outside", "/tmp/outside"):
        told["choices"]["model"] = value
        (folder / "overrides.yaml").write_text(yaml.safe_dump(told))
        refused(command, folder, "choices are names of files in conf/", code=2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (planted("callbacks", "progress", {"_target_": "torchvision.models._api.WeightsEnum.get_state_dict"}), "_api"),
        (planted("data", "train", {"_target_": "torchvision.datasets.Kinetics", "_partial_": True}), "Kinetics"),
        (
            planted("logger", "mine", {"_target_": "vision_lab.callbacks.tensorboard.TensorBoard", "folder": "/tmp"}),
            "folder",
        ),
        (
            planted("callbacks", "best", {"_target_": "vision_lab.callbacks.checkpoints.Best", "dirpath": "/tmp"}),
            "dirpath",
        ),
    ],
    ids=["weights", "archive", "events", "checkpoints"],
)
def test_what_fetches_or_writes_elsewhere_is_refused(
    command: Command, strangers: Callable, change: Callable, text: str
):
    refused(command, strangers(change), text)


def test_a_misspelt_key_beside_a_run_is_answered(command: Command, strangers: Callable):
    folder = strangers(lambda _: None)
    outcome = command("mode=evaluate", f"run={folder}", "trainer.max_epoch=1")
    assert outcome.err.startswith("error: trainer.max_epoch: there is no such key. Did you mean trainer.max_epochs")


@pytest.mark.parametrize("file", ["config.yaml", "overrides.yaml", "spec.json"])
@pytest.mark.parametrize("content", ["", "[1", "{1: 2"])
def test_damaged_files_of_a_run_are_named(command: Command, strangers: Callable, file: str, content: str):
    folder = strangers(lambda _: None)
    (folder / file).write_text(content)
    outcome = command("mode=evaluate", f"run={folder}")
    assert outcome.code == 2
    assert file in outcome.err
    assert "Traceback" not in outcome.err


def test_ones_own_code_is_trusted_by_name(command: Command, strangers: Callable, tmp_path: Path):
    (tmp_path / "my_optim.py").write_text("from torch.optim import AdamW\n\nclass Mine(AdamW):\n    pass\n")
    folder = strangers(lambda config: config["optim"].update(_target_="my_optim.Mine"))
    refused = command("mode=evaluate", f"run={folder}")
    assert "optim._target_=my_optim.Mine: this comes with the run's folder" in refused.err
    assert "type trust=[my_optim]" in refused.err
    assert command("mode=evaluate", f"run={folder}", "trust=[my_optim]").code == 0
    # What the command line itself chooses is its own.
    assert command("mode=evaluate", f"run={folder}", "optim=sgd").code == 0
    assert command(*FAST, "name=own", "optim._target_=my_optim.Mine").code == 0


def test_what_is_admitted():
    assert trust.named("torch.optim.SGD", [])
    assert not trust.named("torchevil.SGD", [])
    assert not trust.named("os.system", ["o"])
    assert not trust.named("${x}", [])
    assert trust.admits(torch.optim.SGD, {}, [])
    assert not trust.admits(torch.load, {}, [])
    assert trust.admits(torch.load, {}, ["torch"])

    class Model:
        __module__ = "timm.models.resnet"
        __qualname__ = "Model"

    assert trust.admits(Model, {"num_classes": 3}, [])
    for arguments in ({"pretrained": True}, {"checkpoint_path": "x"}, {"model_name": "hf-hub:x/y"}, {"_args_": []}):
        assert not trust.admits(Model, arguments, [])
    Model.__module__ = "timm.models._hub"
    assert not trust.admits(Model, {}, [])


def test_every_choice_of_conf_is_admitted():
    """What we ship must not be refused when it comes back with a run."""
    import re

    from vision_lab.choices import CONF
    from vision_lab.parts import _located

    own = {"hydra", "mode", "debug"}
    files = [file for file in CONF.rglob("*.yaml") if not own & set(file.relative_to(CONF).parts)]
    targets = sorted({found for file in files for found in re.findall(r"_target_: ([\w.]+)", file.read_text())})
    assert len(targets) > 75
    refused = [name for name in targets if not (trust.named(name, []) and trust.admits(_located(name), {}, []))]
    assert refused == []
