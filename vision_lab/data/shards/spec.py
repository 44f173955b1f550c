"""The spec of packed data, for ``conf/data/webdataset.yaml``. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vision_lab.core.errors import ConfigurationError
from vision_lab.data.shards.index import read_index, reject_unfinished
from vision_lab.data.shards.storage import Storage

DEFAULTS: dict[str, Any] = {
    "channels": 3,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""Values for shards without an index: those of ImageNet."""

EXAMPLES = {
    "target_type": "labels",
    "class_names": "[cat,dog]",
    "image_size": "[224,224]",
}
"""What to type for shards without an index."""


class PackedSpec(Mapping[str, Any]):
    """The spec of packed data, by attribute of ``DataSpec``.

    Args:
        root: a folder or address with shards.

    Raises:
        DataError: if there is no such folder, their index is invalid, or they are incomplete.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        storage = Storage(root)
        try:
            self.values_by_name = {**DEFAULTS, **read_index(storage).spec}
        except FileNotFoundError:
            storage.check_folder()
            reject_unfinished(storage)
            self.values_by_name = dict(DEFAULTS)

    def __getitem__(self, attribute: str) -> Any:
        if attribute not in self.values_by_name:
            raise ConfigurationError(
                f"{self.root} has no index.json of mode=pack, which would have the {attribute} of "
                f"the data: type data.spec.{attribute}={EXAMPLES.get(attribute, '...')}"
            )
        return self.values_by_name[attribute]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)
