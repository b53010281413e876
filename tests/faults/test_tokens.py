"""Tokens for the hub: sent to the hub, and never to a report, a log, a cache or a terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.system.commands import ended, given, start

TOKEN = "hf_ThisIsASecretThatNobodyMayRead"
PASSWORD = "an0ther-s3cret"


class Echo(BaseHTTPRequestHandler):
    """A hub that refuses everything and tells in every way what it was sent."""

    def do_GET(self) -> None:
        sent = self.headers.get("Authorization", "nothing")
        self.server.sent.append(sent)  # type: ignore[attr-defined]
        self.send_response(403, f"sent {sent}")
        self.send_header("X-Error-Message", f"you sent {sent}")
        self.send_header("X-Error-Code", "Odd")
        self.end_headers()
        self.wfile.write(f"you sent {sent}".encode())

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.sent = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def written(folder: Path) -> bytes:
    """Every byte of every file below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_hub_that_echoes_the_token_gives_it_to_nobody(hub, tmp_path, paths):
    place = f"127.0.0.1:{hub.server_address[1]}"
    env = {
        "HF_TOKEN": TOKEN,
        "HF_ENDPOINT": f"http://reader:{PASSWORD}@{place}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }
    words = given({**paths, "model": "somebody/some-model"}, "Nudge", out="out")
    done = ended(start("run", *words, cwd=tmp_path, **env))
    assert hub.sent, "the hub was never asked, so nothing was tried"
    assert done.code in (4, 13)
    assert "some-model" in done.out + done.err
    for secret in (TOKEN, PASSWORD):
        assert secret not in done.out
        assert secret not in done.err
        assert secret.encode() not in written(tmp_path / "out")


TELLS = '''

class Tells(Nudge):
    """Fails with what it was given to log in with."""

    def edit(self, requests, carry=None):
        import os
        raise RuntimeError(f"401: {os.environ['HF_TOKEN']} refused by https://me:an0ther-s3cret@hub.example/api")


class TellsAtOnce(Nudge):
    def __init__(self, *args, **more):
        self.edit(())

    edit = Tells.edit
'''


def test_an_editor_that_fails_with_a_token_in_its_words_gives_it_to_nobody(tmp_path, paths):
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + TELLS)
    done = ended(start("run", *given(paths, "Tells", "TellsAtOnce", out="out"), cwd=tmp_path, HF_TOKEN=TOKEN))
    assert done.code == 13
    assert "401: *** refused by https://***@hub.example/api" in " ".join(done.out.split())
    for secret in (TOKEN, PASSWORD):
        assert secret not in done.out + done.err
        assert secret.encode() not in written(tmp_path / "out")


def test_a_token_in_the_environment_is_in_no_file_of_a_run(tmp_path, paths):
    """What an editor prints of its environment is its own doing; what is kept of a run is ours."""
    done = ended(
        start("run", *given(paths, "Nudge", "Raises", out="out"), cwd=tmp_path, HF_TOKEN=TOKEN, HF_HUB_TOKEN=TOKEN)
    )
    assert done.code == 13
    assert (tmp_path / "out" / "report.json").is_file()
    assert TOKEN not in done.out + done.err
    assert TOKEN.encode() not in written(tmp_path)
