"""Search spaces in Hydra's grammar."""

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from vision_lab.core.errors import ConfigurationError
from vision_lab.search.space import parse_space


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer.lr=interval(0.1,1)", FloatDistribution(0.1, 1)),
        ("optimizer.lr=interval(1,8)", FloatDistribution(1, 8)),
        ("optimizer.lr=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("head.channels=int(interval(8,64))", IntDistribution(8, 64)),
        ("head.channels=tag(log,int(interval(8,64)))", IntDistribution(8, 64, log=True)),
        ("head.num_convs=range(1,4)", IntDistribution(1, 3)),
        ("head.num_convs=range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("loss.gamma=range(0,1,0.25)", CategoricalDistribution(["0.0", "0.25", "0.5", "0.75"])),
        ("model=resnet20,resnet32", CategoricalDistribution(["resnet20", "resnet32"])),
        ("model=choice(resnet20,resnet32)", CategoricalDistribution(["resnet20", "resnet32"])),
        (
            "data.spec.image_size=[32,32],[64,64]",
            CategoricalDistribution(["[32,32]", "[64,64]"]),
        ),
    ],
)
def test_distributions(word: str, expected: BaseDistribution):
    key = word.partition("=")[0]
    space = parse_space([word, "seed=3"], {})
    assert space.distributions == {key: expected}
    assert space.fixed == ("seed=3",)
    assert space.texts == {key: word.partition("=")[2]}


def test_the_command_line_replaces_the_space_of_an_experiment():
    written = {"optimizer.lr": "tag(log,interval(1e-4,1e-1))", "model": "resnet20,resnet32"}
    space = parse_space(["model=resnet44,resnet56", "name=x"], written)
    assert set(space.distributions) == {"optimizer.lr", "model"}
    assert space.texts["model"] == "resnet44,resnet56"
    assert space.overrides({"optimizer.lr": 0.0123, "model": "resnet44"}) == [
        "name=x",
        "optimizer.lr=0.0123",
        "model=resnet44",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1"], "a search varies at least one option: type optimizer.lr="),
        (["optimizer.lr=interval(1,0.1)"], "cannot be varied: .*low <= high"),
        (["optimizer.lr=tag(log,interval(0,1))"], "cannot be varied: .*low > 0"),
    ],
)
def test_what_is_no_space(words: list[str], message: str):
    with pytest.raises(ConfigurationError, match=message):
        parse_space(words, {})
