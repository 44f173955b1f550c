"""The spec of packed data."""

from pathlib import Path

import pytest

from tests.data.shards.samples import Photographs, label_spec, pack_samples
from vision_lab.core.errors import ConfigurationError
from vision_lab.data.shards.spec import PackedSpec
from vision_lab.data.shards.storage import Storage


def test_the_spec_is_that_of_the_packed_data(tmp_path: Path):
    photographs = Photographs(tmp_path / "photos", [0, 1, 2])
    pack_samples(photographs, Storage(str(tmp_path / "shards")), label_spec())
    spec = PackedSpec(str(tmp_path / "shards"))
    assert spec["target_type"] == "labels"
    assert spec["class_names"] == ["a", "b", "c"]
    assert spec["image_size"] == [16, 16]
    assert spec["mean"] == [0.5]


def test_without_an_index_it_must_be_typed(tmp_path: Path):
    spec = PackedSpec(str(tmp_path))
    assert spec["channels"] == 3
    with pytest.raises(ConfigurationError, match=r"type data\.spec\.class_names=\[cat,dog\]"):
        spec["class_names"]
