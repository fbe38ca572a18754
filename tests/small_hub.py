"""A Hugging Face hub on this machine: what its library asks for, of folders, and what was asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"

LARGE = (".safetensors", ".bin", ".parquet", ".onnx")
"""What the hub keeps outside of git, by its SHA-256."""


@dataclass
class Hub:
    """Where it is, and the requests that it had."""

    address: str
    asked: list[str] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """Names of files whose bytes were asked for, sorted."""
        marks = (item for item in self.asked if item.startswith("GET ") and "/resolve/" in item)
        return sorted(item.split(f"/resolve/{COMMIT}/")[1] for item in marks)


def git_name(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """``/api/{kind}s/{repo}/tree/{commit}`` and ``/{repo}/resolve/{commit}/{file}``."""

    def __init__(self, hub: Hub, folders: Mapping[str, Path], *rest: Any) -> None:
        self.hub, self.folders = hub, folders
        super().__init__(*rest)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        for name, folder in self.folders.items():
            if path == f"/api/{name}/tree/{COMMIT}":
                return self.answer(json.dumps(tree(folder)).encode(), {})
            start = f"/{name.removeprefix('models/')}/resolve/{COMMIT}/"
            file = folder / path.removeprefix(start)
            if path.startswith(start) and file.is_file():
                content = file.read_bytes()
                headers = {"ETag": f'"{git_name(content)}"', "X-Repo-Commit": COMMIT}
                if file.suffix in LARGE:
                    headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
                    headers["X-Linked-Size"] = str(len(content))
                return self.answer(content, headers)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def answer(self, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def tree(folder: Path) -> list[dict[str, Any]]:
    """A folder's files as the hub lists them."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        row = {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(content)}
        row["oid"] = git_name(content)
        if path.suffix in LARGE:
            digest = hashlib.sha256(content).hexdigest()
            row["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        found.append(row)
    return found


@contextmanager
def serving(folders: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve repositories, named ``models/a/b`` or ``datasets/a/b``, until the end of the block."""
    hub = Hub("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub, folders))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
