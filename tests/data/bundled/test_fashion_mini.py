"""The bundled subset of Fashion-MNIST is complete."""

import torch

from vision_lab.data.bundled.fashion_mini import FILE, FashionMini


def test_sizes_and_classes():
    for split, count in (("train", 600), ("test", 100)):
        garments = FashionMini(split=split)
        assert len(garments) == 10 * count
        assert torch.bincount(garments.targets).tolist() == [count] * 10
        image, label = garments[count]
        assert image.shape == (1, 28, 28)
        assert image.dtype == torch.uint8
        assert label == 1


def test_the_license_is_beside_the_data():
    assert "Copyright (c) 2017 Zalando SE" in FILE.with_name("fashion_mini.LICENSE").read_text(
        encoding="utf-8"
    )
