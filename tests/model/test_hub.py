"""A hub that cannot be reached is told in seconds, and one that answers is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from editsafety.errors import ModelError
from editsafety.model import hub
from editsafety.model.loading import ModelSpec, load

NOBODY = "http://reader:s3cret@127.0.0.1:9"  # the port of `discard`: nothing listens there


class Refuses(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def answering() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://reader:s3cret@127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_whatever_answers_can_be_reached(answering: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", answering)
    assert hub.cannot_reach() is None


def test_where_nobody_answers_it_is_said_without_what_one_logs_in_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    said = str(hub.cannot_reach())
    assert said.startswith("http://127.0.0.1:9 cannot be reached (ConnectionRefusedError")
    assert "s3cret" not in said


def test_a_name_that_is_nowhere_is_refused_in_seconds_when_there_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    begun = time.monotonic()
    with pytest.raises(ModelError, match=r"cannot load 'smolm2': .*cannot be reached .* only what is on this machine"):
        load(ModelSpec("smolm2"))
    assert time.monotonic() - begun < 10  # it was a minute


def test_offline_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.cannot_reach() == "HF_HUB_OFFLINE is set"
