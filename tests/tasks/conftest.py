"""A spec of masks."""

import pytest

from vision_lab.core.spec import DataSpec


@pytest.fixture
def mask_spec() -> DataSpec:
    return DataSpec(
        target_type="masks",
        class_names=("sky", "sea", "sand"),
        num_classes=3,
        image_size=(8, 8),
        channels=3,
        mean=(0.0,),
        std=(1.0,),
    )
