"""Files to read, and a server on the loopback to fetch from."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from editsafety.datasets.fetch import Source

Write = Callable[..., Path]
BODY = json.dumps([{"Corpus": "here", "Text": f" text number {i}"} for i in range(5000)]).encode()


@pytest.fixture
def shared_data() -> Path:
    """Published files to try the loaders on; not part of the project."""
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the loaders are tried on made-up rows only")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as JSON lines (`.jsonl`) or as a list (`.json`), or bytes as they are; returns the path."""

    def to_file(*rows: Any, name: str = "rows.jsonl", data: bytes | None = None) -> Path:
        path = tmp_path / name
        if data is None:
            text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
            data = text.encode()
        path.write_bytes(data)
        return path

    return to_file


class Server:
    """What the server on the loopback sends, and how often it was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[str] = []
        self.hold = threading.Event()
        self.hold.set()

    def source(self, path: str = "good.json", **more: Any) -> Source:
        """A pinned row whose bytes are those of `good.json`."""
        values: dict[str, Any] = {
            "name": "sample", "url": f"{self.url}/{path}", "sha256": hashlib.sha256(BODY).hexdigest(),
            "size": len(BODY), "licence": "MIT", "loader": "me_ppl", "about": "",
        }  # fmt: skip
        return Source(**{**values, **more})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            told.hold.wait(10)
            if self.path in RAW:
                self.wfile.write(RAW[self.path])
                return
            kind, body, promised = ANSWERS.get(self.path, (None, b"", 0))
            if kind is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if promised:
                self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(body)

        def finish(self) -> None:
            try:
                super().finish()
            finally:  # the client may have hung up already
                self.rfile.close()
                self.wfile.close()

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Server(listening.server_address[1])
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    listening.shutdown()
    thread.join()
    listening.server_close()
    with warnings.catch_warnings():
        # urllib itself leaves the socket of an odd answer to the garbage collector: here, and not in some later test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


PLAIN = "text/plain"
ALTERED = BODY.replace(b"number 7", b"number 8")
PAGE = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"
ANSWERS: dict[str, tuple[str, bytes, int]] = {
    "/good.json": (PLAIN, BODY, len(BODY)),
    "/unsized.json": (PLAIN, BODY, 0),
    "/altered.json": (PLAIN, ALTERED, len(ALTERED)),
    "/short.json": (PLAIN, BODY[:500], 500),
    "/long.json": (PLAIN, BODY + b" ", len(BODY) + 1),
    "/page.json": ("text/html; charset=utf-8", PAGE, len(PAGE)),
    "/disguised.json": (PLAIN, b"\n " + PAGE, len(PAGE) + 2),
    "/dies.json": (PLAIN, BODY[: len(BODY) // 2], len(BODY)),
    "/dies-unsized.json": (PLAIN, BODY[: len(BODY) // 2], 0),
}
# Whole answers, headers and all, of servers that do not keep to the rules.
OK = b"HTTP/1.0 200 OK\r\n"
RAW: dict[str, bytes] = {
    "/length-abc.json": OK + b"Content-Length: abc\r\n\r\n" + BODY,
    "/length-negative.json": OK + b"Content-Length: -5\r\n\r\n" + BODY,
    "/length-huge.json": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + BODY,
    "/length-more.json": OK + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 1) + BODY,
    "/loop.json": b"HTTP/1.0 302 Found\r\nLocation: /loop.json\r\n\r\n",
    "/nowhere.json": b"HTTP/1.0 302 Found\r\nLocation: http://[bad/x\r\n\r\n",
    "/file.json": b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    "/reason.json": b"HTTP/1.0 500 \x1b[2J::error::pwned\r\n\r\n",
    "/no-http.json": b"SSH-2.0-OpenSSH_9.2\r\n",
    "/silent.json": b"",
    "/status-abc.json": b"HTTP/1.0 abc OK\r\n\r\n",
    "/header-bomb.json": OK + b"X: y\r\n" * 500 + b"\r\n" + BODY,
    "/chunk-abc.json": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
}
