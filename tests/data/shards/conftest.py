"""Shards in folders and on an S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.shards.servers import S3, FaultyProxy, credentials
from vision_lab.data.shards import storage


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    server = S3()
    server.create_bucket()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy to the server, with an empty cache and short pauses."""
    proxy = FaultyProxy(s3_server.address)
    for name, value in credentials(proxy.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "INITIAL_BACKOFF_SECONDS", 0.01)
    yield proxy
    proxy.close()
