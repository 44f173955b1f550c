"""Contracts over all of ``conf/``: each file has a summary, composes, and fits its classes."""

import dataclasses
import inspect
from itertools import zip_longest

import pytest
import torch
import yaml

from tests.builders import FAMILIES, GROUPS, WITHOUT_FEATURE_MAPS, composed, without
from vision_lab import build
from vision_lab.config.groups import ConfigOption
from vision_lab.config.instantiation import instantiate, locate
from vision_lab.config.validation import find_group_errors
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.protocols import Backbone, GanNetworks
from vision_lab.core.signatures import get_parameters

pytestmark = pytest.mark.usefixtures("hydra_resolvers")


COUNTS = {
    "task": 5,
    "model": 71,
    "head": 14,
    "loss": 13,
    "data": 24,
    "sampler": 2,
    "augment": 9,
    "diffaugment": 3,
    "features": 4,
    "optimizer": 4,
    "scheduler": 6,
    "trainer": 7,
    "callbacks": 3,
    "logger": 5,
    "mode": 8,
    "search": 6,
    "experiment": 6,
    "debug": 3,
    "hydra": 1,
}

NOT_INSTALLED = {"wandb", "mlflow"}
"""Loggers whose packages the user brings."""


DIFFERENT_DEFAULTS = {"label_smoothing": {"label_smoothing"}, "bce": {"real_label"}}
"""Arguments that are the reason for a file of their own."""

TO_BE_TYPED = ("data.spec.class_names is missing", "mode.shards is missing")
"""What a folder of masks cannot say of itself, and where shards are written."""


def test_counts():
    assert {group: len(choices) for group, choices in GROUPS.items()} == COUNTS


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_has_a_one_line_summary(group: str):
    for choice in GROUPS[group]:
        assert 10 < len(choice.summary) < 120, choice.file
        assert not choice.summary.removesuffix("...").endswith("."), choice.file
        first = choice.file.read_text(encoding="utf-8").splitlines()[0]
        reaches_out = group in ("experiment", "debug") or choice.name in (
            "predict",
            "segment",
            "detect",
            "generate",
            "reconstruct",
        )
        assert first.startswith("# @package _global_") == reaches_out, choice.file


CHECKED_GROUPS = [group for group in GROUPS if group not in ("experiment", "debug", "hydra")]


def is_global(choice: ConfigOption) -> bool:
    """Whether an option changes other groups too."""
    return choice.file.read_text(encoding="utf-8").startswith("# @package _global_")


def combine_choices() -> list[str]:
    """Return overrides that select each option: global ones alone, others of all groups together."""
    alone, together = [], {}
    for group, choices in GROUPS.items():
        words = [f"{group}={choice.name}" for choice in choices if not is_global(choice)]
        together[group] = [word for word in words if word.partition("=")[2] not in NOT_INSTALLED]
        alone += [f"{group}={choice.name}" for choice in choices if is_global(choice)]
    del together["hydra"]
    rows = zip_longest(*together.values())
    return alone + [" ".join(word for word in row if word) for row in rows]


def test_every_choice_is_among_the_combinations():
    words = " ".join(combine_choices()).split()
    expected = sum(COUNTS.values()) - COUNTS["hydra"] - len(NOT_INSTALLED)
    assert len(words) == len(set(words)) == expected


@pytest.mark.parametrize("words", combine_choices())
def test_every_choice_composes_and_matches_its_classes(words: str):
    config = composed(*words.split())
    errors = [error for group in CHECKED_GROUPS for error in find_group_errors(config, group)]
    known = ("data.root is missing", "features.folder is missing", *TO_BE_TYPED)
    assert [error for error in errors if not error.startswith(known)] == []


def test_defaults_of_functions_are_those_of_their_files():
    """So that a part does the same from Python as by its short name."""
    compared = 0
    for group in ("head", "loss", "model"):
        for choice in GROUPS[group]:
            node = yaml.safe_load(choice.file.read_text(encoding="utf-8"))
            if not str(node.get("_target_")).startswith("vision_lab."):
                continue
            parameters, _ = get_parameters(locate(node["_target_"]))
            for name in set(node) & set(parameters):
                default = parameters[name].default
                if default is not inspect.Parameter.empty:
                    default = list(default) if isinstance(default, tuple) else default
                    differs = (
                        choice.name in DIFFERENT_DEFAULTS
                        and name in DIFFERENT_DEFAULTS[choice.name]
                    )
                    assert (default == node[name]) != differs, f"{choice.file}: {name}"
                    compared += 1
    assert compared == 96


@pytest.mark.parametrize("name", sorted(NOT_INSTALLED))
def test_loggers_of_other_packages_compose(name: str):
    node = composed(f"logger={name}")["logger"][name]
    assert node["_target_"].startswith("pytorch_lightning.loggers.")


BACKBONES = [choice for choice in GROUPS["model"] if not choice.target_types]
PAIRS = [choice for choice in GROUPS["model"] if choice.target_types == ("none",)]


def test_the_number_of_models_of_each_kind():
    assert (len(BACKBONES), len(PAIRS)) == (65, 1)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("choice", PAIRS, ids=lambda c: c.name)
def test_every_gan_generates_and_scores_images(choice: ConfigOption, size: int):
    """With and without class labels, on the meta device."""
    for condition in ("null", "concatenation", "projection"):
        config = composed(
            "task=generate", f"model={choice.name}", f"model.conditioning={condition}"
        )
        config = config.updated({"data.spec.image_size": [size, size]})
        with torch.device("meta"):
            pair: GanNetworks = build.network(config, build.spec(config)).module
            labels = torch.zeros(2, dtype=torch.int64) if pair.conditional else None
            images = pair.generator(torch.empty(2, pair.latent_dim), labels)
            assert images.shape == (2, 1, size, size)
            assert pair.discriminator(images, labels).shape == (2,)
        assert pair.conditional == (condition != "null")


@pytest.mark.parametrize(
    "choice",
    [c if c.name in FAMILIES else pytest.param(c, marks=pytest.mark.slow) for c in BACKBONES],
    ids=lambda choice: choice.name,
)
def test_every_model_is_a_backbone_with_published_keys(choice: ConfigOption):
    """On the meta device at the paper's size: strides double, and keys and shapes are those of the constructor."""
    size = 299 if choice.name == "inception_v3" else 224
    words = (f"data.spec.image_size=[{size},{size}]", "data.spec.channels=3")
    config = composed(f"model={choice.name}", *words)
    spec = dataclasses.replace(build.spec(config), image_size=(size, size), channels=3)
    with torch.device("meta"):
        made: Backbone = instantiate(without(config["model"], "target_type"), "model")(spec)
        published = instantiate(config["model"]["network"], "model.network")(num_classes=10)
    assert {k: v.shape for k, v in made.network.state_dict().items()} == {
        k: v.shape for k, v in published.state_dict().items()
    }
    logits = made.network.eval()(torch.empty(2, 3, size, size, device="meta"))
    assert logits.shape == (2, 10)
    if choice.name in WITHOUT_FEATURE_MAPS:
        return
    strides = [stage.stride for stage in made.stages]
    assert strides == [
        2**power for power in range(strides[0].bit_length() - 1, strides[-1].bit_length())
    ]
    assert len(strides) >= 3
    assert all(stage.channels >= 16 for stage in made.stages)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_b_16", 96, r"does not run at 256x256 pixels \(Wrong image height"),
        ("maxvit_t", 224, "does not run at 256x256 pixels"),
    ],
)
def test_heads_refuse_networks_without_feature_maps(name: str, size: int, message: str):
    config = composed("task=segment", f"model={name}", f"data.spec.image_size=[{size},{size}]")
    with pytest.raises(ConfigurationError, match=message), torch.device("meta"):
        build.network(config, build.spec(config))


def test_the_number_of_models_of_torchvision():
    texts = [choice.file.read_text(encoding="utf-8") for choice in GROUPS["model"]]
    assert sum("_target_: torchvision.models." in text for text in texts) == 57


@pytest.mark.parametrize("task", ["segment", "detect"])
@pytest.mark.parametrize("choice", GROUPS["augment"], ids=lambda c: c.name)
def test_every_augmentation_transforms_masks_and_boxes(choice: ConfigOption, task: str):
    """Or is refused: crops in evaluation for boxes, box transforms for masks."""
    config = composed(
        f"task={task}", f"augment={choice.name}", "data.num_images={train: 8, val: 1, test: 1}"
    )
    refused = {"detect": {"imagenet", "center_crop"}, "segment": {"iou_crop", "mosaic"}}
    if choice.name in refused[task]:
        with pytest.raises(
            ConfigurationError,
            match=r"augment\.(eval must be empty for|train contains a transform of) boxes",
        ):
            build.data(config, build.spec(config))
        return
    data = build.data(config, build.spec(config))
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (8, 3, 96, 96)
    assert batch.images.dtype == torch.uint8
    if task == "segment":
        assert batch.targets.shape == (8, 96, 96)
        assert set(batch.targets.unique().tolist()) <= {*range(6), 255}
        return
    assert sum(map(len, batch.targets)) > 4
    for objects in batch.targets:
        assert {len(column) for column in vars(objects).values()} == {len(objects)}
        assert (objects.boxes >= 0).all()
        assert (objects.boxes <= 96).all()
        assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()
