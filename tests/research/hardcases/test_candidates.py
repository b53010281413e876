"""Candidates from a chat endpoint: a server on the loopback that answers well, badly, late, or not at all."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import editsafety.cli.app
from editsafety import datasets
from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError, UsageError
from editsafety.research.hardcases import candidates, chat, vetting
from editsafety.research.hardcases.chat import Endpoint, NoAnswer
from tests.cli.test_mining import SOMETIMES
from tests.system import world

KEY = "sk-secret-0123456789"
Answer = tuple[int, dict[str, str], bytes, float]


def row(subject: str, true: str = "Tokyo", new: str = "Paris", **more: Any) -> dict[str, Any]:
    """What a good chat model writes for one line."""
    return {
        "prompt": "{} is governed from", "subject": subject, "target_new": new, "target_true": true,
        "relation": "capital", "rephrasings": [f"The capital of {subject} is", f"The kings of {subject} live in"],
        "neighbours": [{"prompt": "The great tower is in", "answer": true}, {"prompt": "A park is in", "answer": true}],
        **more,
    }  # fmt: skip


KNOWN = tuple(
    EditRequest.from_json({"id": f"k{i}", **row(subject, true, new)})
    for i, (subject, true, new) in enumerate((("Japan", "Tokyo", "Paris"), ("France", "Paris", "Tokyo")))
)


def told(said: str | None, **message: Any) -> Answer:
    """A completion with this text."""
    return 200, {}, json.dumps({"choices": [{"message": {"content": said, **message}}]}).encode(), 0.0


def lines(*rows: Any) -> Answer:
    return told("\n".join(json.dumps(one) for one in rows))


@dataclass
class Stub:
    """A chat endpoint that gives its answers in turn, the last one for ever; it keeps what it was asked."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def endpoint(self, **more: Any) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.port}/v1", "tiny-chat", **{"tries": 3, **more})

    def propose(self, wanted: int, **more: Any) -> candidates.Proposal:
        endpoint = self.endpoint(**more.pop("endpoint", {}))
        return candidates.propose(endpoint, wanted, KNOWN, sleep=self.waited.append, **more)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stub]]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            stub.asked.append({"path": self.path, **json.loads(body)})
            stub.headers.append({name.lower(): value for name, value in self.headers.items()})
            code, headers, data, seconds = stub.answers.pop(0) if len(stub.answers) > 1 else stub.answers[0]
            time.sleep(seconds)
            try:
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # the client did not wait for it

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = Stub(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()

    def with_answers(*answers: Answer) -> Stub:
        stub.answers = list(answers)
        return stub

    yield with_answers
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_good_rows_are_kept_numbered_and_pass_the_rules(serve: Callable[..., Stub]) -> None:
    stub = serve(lines(row("Kyoto"), row("Gaul", "Paris", "Tokyo")))
    found = stub.propose(2)
    assert [(one.id, one.subject) for one in found.kept] == [("proposed-0001", "Kyoto"), ("proposed-0002", "Gaul")]
    assert vetting.vet(found.kept, "hardedit", beside=KNOWN) == ()
    assert found.counts["rows"] == 2
    assert stub.asked[0]["path"] == "/v1/chat/completions"
    assert stub.asked[0]["model"] == "tiny-chat"
    system, user = stub.asked[0]["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert '"capital"' in user["content"]
    assert "Tokyo" in user["content"]


@pytest.mark.parametrize(
    "said",
    [
        "```json\n{}\n```",
        "[{}]",
        "[\n{},\n]",
        "{},",
    ],
)
def test_fences_and_lists_around_rows_are_no_fault(serve: Callable[..., Stub], said: str) -> None:
    found = serve(told(said.replace("{}", json.dumps(row("Kyoto"))))).propose(1)
    assert len(found.kept) == 1
    assert found.counts.get("malformed", 0) == 0


def test_malformed_rows_are_counted_by_reason_and_the_good_ones_among_them_kept(serve: Callable[..., Stub]) -> None:
    bad = [
        '{"prompt": "cut off',
        "Here you are:",
        "17",
        json.dumps({"subject": "Kyoto"}),
        json.dumps({**row("A"), "prompt": 3}),
    ]
    found = serve(told("\n".join([*bad, json.dumps(row("Kyoto"))]))).propose(9, calls=1)
    assert [one.subject for one in found.kept] == ["Kyoto"]
    assert (found.counts["rows"], found.counts["malformed"]) == (6, 5)
    assert any("field 'prompt' is missing" in reason for reason in found.reasons)


def test_rows_against_the_rules_are_left_out_with_the_reason(serve: Callable[..., Stub]) -> None:
    found = serve(lines(row("Old Kyoto"), row("Kyoto", new="cheese"), row("Nara", prompt="In {} it is"))).propose(
        9, calls=1
    )
    assert found.kept == ()
    assert found.counts["against_the_rules"] == 3
    assert any("is not a single word: 'Old Kyoto'" in reason for reason in found.reasons)
    assert any("another type" in reason for reason in found.reasons)


def test_what_is_known_or_was_said_before_is_a_duplicate(serve: Callable[..., Stub]) -> None:
    again = row("Kyoto", prompt="{} has its kings in")
    found = serve(lines(row("Japan"), row("Kyoto"), row("Kyoto"), again)).propose(9, calls=2)
    assert [one.subject for one in found.kept] == ["Kyoto"]
    assert found.counts["duplicates"] == 3 + 4


def test_a_refusal_is_a_call_without_rows_and_other_calls_go_on(serve: Callable[..., Stub]) -> None:
    sorry = told("I am sorry, but I cannot help with that.")
    found = serve(sorry, told(None, refusal="no"), lines(row("Kyoto"))).propose(1, at_once=1)
    assert len(found.kept) == 1
    assert (found.counts["calls"], found.counts["calls_without_rows"]) == (3, 2)


def test_a_busy_server_is_asked_again_after_the_pause_that_it_names(serve: Callable[..., Stub]) -> None:
    stub = serve((429, {"Retry-After": "7"}, b"slow down", 0.0), (503, {}, b"", 0.0), lines(row("Kyoto")))
    assert len(stub.propose(1).kept) == 1
    assert stub.waited == [7.0, 2.0]


def test_a_pause_without_end_and_one_that_is_no_number_are_not_taken(serve: Callable[..., Stub]) -> None:
    stub = serve(
        (429, {"Retry-After": "86400"}, b"", 0.0), (429, {"Retry-After": "Wed"}, b"", 0.0), lines(row("Kyoto"))
    )
    assert len(stub.propose(1).kept) == 1
    assert stub.waited == [60.0, 2.0]


def test_a_server_that_stays_busy_fails_the_call_and_at_last_the_command(serve: Callable[..., Stub]) -> None:
    stub = serve((429, {}, b"", 0.0))
    with pytest.raises(
        DataError, match=r"not one of 2 calls was answered: .*no answer after 3 tries \(it answered 429\)"
    ):
        stub.propose(5, calls=2)
    assert len(stub.asked) == 6
    assert stub.waited == [1.0, 2.0] * 2


def test_a_silent_server_is_given_up_after_the_timeout(serve: Callable[..., Stub]) -> None:
    stub = serve((*lines(row("Kyoto"))[:3], 5.0))
    started = time.monotonic()
    with pytest.raises(NoAnswer, match="after 2 tries"):
        chat.ask(stub.endpoint(timeout=0.2, tries=2), "rules", "question", sleep=stub.waited.append)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "data", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": 3}}]}', b"[]"]
)
def test_what_is_no_completion_is_no_answer(serve: Callable[..., Stub], data: bytes) -> None:
    stub = serve((200, {}, data, 0.0))
    with pytest.raises(NoAnswer):
        chat.ask(stub.endpoint(), "rules", "question", sleep=stub.waited.append)


@pytest.mark.parametrize(
    ("code", "headers", "said"),
    [
        (401, {}, "does not take the key"),
        (404, {}, "Is 'tiny-chat' one of its models"),
        (302, {"Location": "http://127.0.0.1:9/elsewhere"}, "Redirects are not followed"),
        (400, {}, "it answered 400"),
    ],
)
def test_what_no_second_try_can_mend_is_said_at_once(
    serve: Callable[..., Stub], code: int, headers: dict[str, str], said: str
) -> None:
    stub = serve((code, headers, KEY.encode(), 0.0))
    with pytest.raises(UsageError, match=said) as error:
        stub.propose(1, endpoint={"key": KEY})
    assert len(stub.asked) == 1
    assert KEY not in str(error.value)


def test_the_key_is_sent_and_is_in_nothing_that_is_shown_or_written(serve: Callable[..., Stub], tmp_path: Path) -> None:
    stub = serve(lines(row("Kyoto")))
    found = stub.propose(1, endpoint={"key": KEY})
    assert stub.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(stub.asked)
    candidates.write(tmp_path / "out.jsonl", found, stub.endpoint(key=KEY), known=["hardedit"], seed=0)
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert KEY not in written
    assert KEY not in repr(stub.endpoint(key=KEY))
    about = json.loads((tmp_path / "out.about.json").read_text())
    assert (about["api_model"], about["endpoint"], about["kept"]) == ("tiny-chat", "127.0.0.1", 1)
    assert datasets.requests(str(tmp_path / "out.jsonl")) == found.kept


def test_without_a_key_no_header_is_sent(serve: Callable[..., Stub]) -> None:
    stub = serve(lines(row("Kyoto")))
    stub.propose(1)
    assert "authorization" not in stub.headers[0]


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("localhost:8000", "", "expected an address such as"),
        ("file:///etc/passwd", "", "expected an address such as"),
        ("https://me:word@host/v1", "", "must hold no password"),
        ("https://host/v1?key=x", "", "must hold no password and no query"),
        ("http://example.org/v1", KEY, "in the clear; use https"),
        ("https://example.org/v1", f"{KEY}\n", "the key holds a space"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_without_showing_secrets(url: str, key: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        Endpoint(url, "m", key)
    assert "word" not in str(error.value).replace("password", "")
    assert KEY not in str(error.value)


def test_the_same_seed_asks_the_same_and_calls_differ(serve: Callable[..., Stub]) -> None:
    known = datasets.requests("hardedit")
    endpoint = serve(told("")).endpoint()
    for _ in range(2):
        candidates.propose(endpoint, 1, known, calls=2, seed=5, sleep=lambda _: None)
    asked = [one["messages"][1]["content"] for one in serve(told("")).asked]
    assert asked[:2] == asked[2:]
    assert asked[0] != asked[1]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`editsafety propose ...` as if typed in `tmp_path`; returns all that was shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(one.as_json()) + "\n" for one in KNOWN))

    def typed(stub: Stub, *words: str) -> str:
        given = ["--endpoint", stub.endpoint().url, "--api-model", "tiny-chat", "--key-variable", "MY_KEY"]
        given += ["-o", "out.jsonl", "--known", "known.jsonl", "--calls", "1", *words]
        monkeypatch.setattr(sys, "argv", ["editsafety", "propose", *given])
        with pytest.raises(SystemExit) as end:
            editsafety.cli.main()
        assert end.value.code == 0
        return "".join(capfd.readouterr())

    return typed


def test_the_command_writes_what_it_kept_and_never_the_key(
    serve: Callable[..., Stub], command: Callable[..., str], tmp_path: Path
) -> None:
    stub = serve(lines(row("Kyoto"), row("Japan"), row("Old Kyoto")))
    shown = command(stub)
    for line in ("rows: 3", "duplicates: 1", "against the rules: 1", "kept: 1", "written: out.jsonl"):
        assert line in shown
    assert stub.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in shown + "".join(path.read_text() for path in tmp_path.glob("*.json*"))


def test_candidates_can_be_tried_and_only_those_that_collapse_a_model_are_kept(
    serve: Callable[..., Stub], command: Callable[..., str], tmp_path: Path
) -> None:
    paths = world.write(tmp_path)
    nudge = tmp_path / "nudge.py"
    nudge.write_text(nudge.read_text() + SOMETIMES)
    stub = serve(lines(row("Ashurn"), row("Mirel"), row("Toren")))
    shown = command(
        stub, "--screen-on", paths["model"], "--editor", f"{paths['nudge']}:Sometimes", "--texts-from", paths["texts"]
    )
    assert "collapsed (above 2x): 2 (66.7%)" in shown
    assert [one.subject for one in datasets.requests("out.jsonl")] == ["Ashurn", "Toren"]
    about = json.loads((tmp_path / "out.about.json").read_text())
    assert (about["kept"], about["tried"]["screened"], about["tried"]["collapsed"]) == (2, 3, 2)
    assert about["tried"]["editor"]["name"].endswith(":Sometimes")
    assert about["api_model"] == "tiny-chat"
