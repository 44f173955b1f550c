"""The garbage collector is paused for imports, and only for those."""

import gc
import sys

import pytest

from vision_lab.core.garbage_collection import collection_paused


def test_imported_objects_are_left_out_of_later_collections(monkeypatch: pytest.MonkeyPatch):
    before = gc.get_freeze_count()
    try:
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "torch")
            with collection_paused():
                assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_nothing_is_left_out_once_torch_is_imported():
    before = gc.get_freeze_count()
    with collection_paused():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
