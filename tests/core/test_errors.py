"""Errors that the user can fix."""

import pytest
from torch._utils import ExceptionWrapper

from vision_lab.core.errors import ConfigurationError, DataError


@pytest.mark.parametrize("kind", [DataError, ConfigurationError])
def test_errors_of_workers_have_no_traceback(kind: type[Exception]):
    message = "a.tar: it ends early:\n  sample 1\ntype this"
    try:
        raise kind(message)
    except kind:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(kind) as caught:
        wrapped.reraise()
    assert str(caught.value) == message


def test_other_messages_are_kept():
    assert str(DataError("Caught a fish")) == "Caught a fish"
