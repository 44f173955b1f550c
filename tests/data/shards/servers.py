"""An S3 server on this machine, and a proxy in front of it that fails as networks do."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BUCKET = "bucket"


@dataclass
class Fault:
    """How the proxy fails.

    Attributes:
        matches: part of the path of the requests that fail.
        times: number of requests that fail; the others pass.
        cut_after: bytes of the body after which the connection is closed; None for none.
        delay: seconds before the answer.
        status: status to answer with; None for that of the server.
    """

    matches: str
    times: int
    cut_after: int | None = None
    delay: float = 0
    status: int | None = None


@dataclass
class FaultyProxy:
    """Forwards requests to a server, but for those that fail.

    Attributes:
        target: address of the server.
        faults: how to fail, which tests change.
        requests: method and path of all requests so far.
    """

    target: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take_fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.matches in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _make_handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # clients wait for an answer before they send a body

            def forward(self) -> None:
                proxy.requests.append(f"{self.command} {self.path}")
                fault = proxy.take_fault(self.path)
                if fault is not None:
                    time.sleep(fault.delay)
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name: self.headers[name] for name in self.headers if name != "Expect"}
                target = http.client.HTTPConnection(urlsplit(proxy.target).netloc)
                target.request(self.command, self.path, self.rfile.read(length), headers)
                answer = target.getresponse()
                body = answer.read()
                if fault is not None and fault.status is not None:
                    self.send_response(fault.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                size = answer.getheader("Content-Length") or str(len(body))
                self.send_header("Content-Length", size)
                self.end_headers()
                if fault is not None and fault.cut_after is not None:
                    self.wfile.write(body[: fault.cut_after])
                    self.close_connection = True
                    return
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


class S3:
    """An S3 server with a bucket.

    Args:
        port: its port; 0 for any.
    """

    def __init__(self, port: int = 0) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would list all requests
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def create_bucket(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("PUT", f"/{BUCKET}", headers={"Authorization": SIGNED})
        assert connection.getresponse().status == 200

    def stop(self) -> None:
        self.server.stop()


SIGNED = (
    "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
"""Credentials that the server does not check."""


def credentials(address: str) -> dict[str, str]:
    """Return the environment variables with which S3 is found at an address."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


class _RangeHandler(BaseHTTPRequestHandler):
    """Sends files and their list, as a web server that can send a part of a file."""

    folder: Path

    def do_HEAD(self) -> None:
        self._send(with_body=False)

    def do_GET(self) -> None:
        self._send(with_body=True)

    def _send(self, *, with_body: bool) -> None:
        path = self.folder / self.path.lstrip("/")
        if path.is_dir():
            links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in path.iterdir())
            content = links.encode()
        elif path.is_file():
            content = path.read_bytes()
        else:
            self.send_error(404)
            return
        status, size, found = 200, len(content), self.headers.get("Range")
        if found and with_body:
            first, _, last = found.removeprefix("bytes=").partition("-")
            status, content = 206, content[int(first) : int(last or size) + 1]
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if path.is_dir() else "application/x-tar")
        if status == 206:
            self.send_header(
                "Content-Range", f"bytes {first}-{int(first) + len(content) - 1}/{size}"
            )
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Start a web server, and yield its address."""
    handler = type("Handler", (_RangeHandler,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
