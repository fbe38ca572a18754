"""A real S3 server on the loopback, and a proxy before it that does what networks do."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

BUCKET = "results"

THROTTLED = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


@dataclass
class Faults:
    """What the proxy does to requests from now on.

    Attributes:
        throttle: every so many requests, one is answered with 503; 0 for none.
        cut: so many writes lose their connection in the middle of their bytes.
        requests: how many came.
        throttled: how many were answered with 503.
        written: how often each object was written whole.
    """

    throttle: int = 0
    cut: int = 0
    requests: int = 0
    throttled: int = 0
    written: dict[str, int] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def _pass_on(self) -> None:
        faults = self.server.faults
        body = self._body()
        with faults.lock:
            faults.requests += 1
            is_throttled = bool(faults.throttle) and faults.requests % faults.throttle == 0
            is_cut = self.command == "PUT" and len(body) > 0 and faults.cut > 0
            faults.throttled += is_throttled
            faults.cut -= is_cut and not is_throttled
        if is_throttled:
            self._answer(503, [("Content-Type", "application/xml")], THROTTLED)
            return
        if is_cut:
            self._send_half(body)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        with closing(upstream):
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
        if self.command == "PUT" and answer.status == 200:
            with faults.lock:
                faults.written[self.path] = faults.written.get(self.path, 0) + 1
        self._answer(answer.status, answer.getheaders(), content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - the library's names

    def _body(self) -> bytes:
        """What the client sends, which passes on with its length and in one piece."""
        del self.headers["Expect"]  # answered already
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
            del self.headers["Transfer-Encoding"]
            self.headers["Content-Length"] = str(len(body))
        return body

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def _send_half(self, body: bytes) -> None:
        """Let the server see the beginning of the write alone."""
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as upstream:
            lines = [f"{self.command} {self.path} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in self.headers.items()]
            upstream.sendall("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2])

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        is_head = self.command == "HEAD"
        self.send_header("Content-Length", str(length if is_head else len(content)))
        with suppress(ConnectionError):  # a client that has given up
            self.end_headers()
            if not is_head:
                self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.faults = upstream, Faults()


@dataclass(frozen=True)
class S3:
    """Where the server is.

    Attributes:
        endpoint: of the proxy.
        faults: what the proxy does.
    """

    endpoint: str
    faults: Faults


@contextmanager
def s3_server() -> Iterator[S3]:
    """Start both, with one bucket."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        proxy = _Proxy(port)
        Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            _create_bucket(port)
            yield S3(f"http://127.0.0.1:{proxy.server_port}", proxy.faults)
        finally:
            proxy.shutdown()
            proxy.server_close()
            server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _create_bucket(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with suppress(OSError), closing(connection):
            connection.request("PUT", f"/{BUCKET}")
            assert connection.getresponse().status == 200
            return
        time.sleep(0.1)
    raise TimeoutError("the S3 server did not start")
