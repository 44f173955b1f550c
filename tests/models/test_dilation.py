"""Dilation instead of strides: bit-exactly torchvision's for ResNets; the definition for any other network."""

from math import log2

import pytest
import torch
import torchvision
from torch import nn

from vision_lab.core.arguments import ArgumentError
from vision_lab.models.backbone import ClassifierBackbone
from vision_lab.models.dilation import DilatedPool, dilate


def backbone(name: str) -> ClassifierBackbone:
    torch.manual_seed(0)
    return ClassifierBackbone(
        getattr(torchvision.models, name)(weights=None).eval(), channels=3, loaded=None
    )


@pytest.mark.parametrize(
    ("output_stride", "dilated"), [(8, [False, True, True]), (16, [False, False, True])]
)
def test_the_network_equals_torchvisions_for_resnets(output_stride: int, dilated: list[bool]):
    published = torchvision.models.resnet50(replace_stride_with_dilation=dilated).eval()
    made = backbone("resnet50")
    made.network.load_state_dict(published.state_dict())
    dilate(made.network, channels=3, output_stride=output_stride)
    images = torch.rand(1, 3, 65, 90)
    with torch.no_grad():
        assert torch.equal(made.network(images), published(images))


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("vgg11_bn", "efficientnet_b0", "convnext_tiny")
        ),
    ],
)
def test_dilated_maps_contain_the_strided_map(name: str):
    """At half the stride the map contains the original one, except at borders."""
    strided, dilated = backbone(name), backbone(name)
    last = strided.stages[-1].name
    images = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        one = strided.features([last])(images)[last]
        other = dilated.features([last], output_stride=16)(images)[last]
    assert one.shape[-1] * 2 == other.shape[-1] == 16
    if name in ("mobilenet_v3_small", "efficientnet_b0"):
        return  # squeeze-and-excitation takes the mean over another number of pixels
    inner = slice(3, 5)
    assert torch.allclose(
        one[..., inner, inner], other[..., ::2, ::2][..., inner, inner], atol=1e-4
    )


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "mobilenet_v2",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("densenet121", "squeezenet1_0", "googlenet")
        ),
    ],
)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_no_stride_is_larger(name: str, output_stride: int):
    with torch.device("meta"):
        arguments = {"init_weights": False} if name == "googlenet" else {}
        classifier = getattr(torchvision.models, name)(weights=None, **arguments)
    made = ClassifierBackbone(classifier, channels=3, loaded=None)
    keys = set(classifier.state_dict())
    names = [stage.name for stage in made.stages]
    strides = [stage.stride for stage in made.stages]
    maps = made.features(names, output_stride=output_stride)(
        torch.empty(2, 3, 512, 512, device="meta")
    )
    found = [
        2 ** round(log2(512 / maps[name].shape[-1])) for name in names
    ]  # some networks pad less than others
    assert found == [min(stride, output_stride) for stride in strides]
    assert set(classifier.state_dict()) == keys


def test_a_network_that_cannot_be_dilated_raises_with_advice():
    made = ClassifierBackbone(
        torchvision.models.inception_v3(init_weights=False, aux_logits=False),
        channels=3,
        loaded=None,
    )
    with pytest.raises(
        ArgumentError,
        match="output_stride=8: type null, or choose another model: this one cannot be dilated",
    ):
        made.features([made.stages[-1].name], output_stride=8)


def test_invalid_output_strides_are_refused():
    with pytest.raises(ArgumentError, match=r"output_stride=3: type 8, 16, 32 or null"):
        backbone("resnet18").features(["layer4.1"], output_stride=3)


@pytest.mark.parametrize(("largest", "pool"), [(True, nn.MaxPool2d), (False, nn.AvgPool2d)])
@pytest.mark.parametrize("kernel", [2, 3])
def test_a_dilated_pool_equals_the_pool_at_each_pixel(
    largest: bool, pool: type[nn.Module], kernel: int
):
    x = torch.rand(2, 3, 9, 11)
    wide = DilatedPool(kernel_size=kernel, dilation=1, is_max=largest)(x)
    assert wide.shape == x.shape
    first = (kernel - 1) // 2
    assert torch.allclose(
        wide[..., first : first + 9 - kernel + 1, first : first + 11 - kernel + 1],
        pool(kernel, 1)(x),
    )
    spread = DilatedPool(kernel_size=kernel, dilation=2, is_max=largest)(x)
    alone = pool(kernel, 1)(x[..., ::2, ::2])
    begin = (kernel - 1) // 2 * 2 + (kernel == 2)
    assert torch.allclose(
        spread[..., begin::2, begin::2][..., : alone.shape[-2], : alone.shape[-1]], alone
    )
