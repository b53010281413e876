"""Asking a chat model over HTTP: OpenAI's chat completions, with the standard library alone. No torch here.

The key is a header of the request and nothing else: it is in no message, no file and no repr, is not sent along a
redirect, and not over plain HTTP to another machine.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from editsafety.errors import DataError, UsageError

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # the server may answer later
LONGEST_WAIT = 60.0  # seconds
MOST_BYTES = 1 << 22


class NoAnswer(DataError):
    """A call that came to nothing, after all tries."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask. Raises UsageError for an invalid address."""

    # The base address, ".../v1".
    url: str
    # The model's name there.
    model: str
    # The key, where one is needed.
    key: str = field(default="", repr=False)
    # Seconds without a byte.
    timeout: float = 60.0
    # How many, the first one included.
    tries: int = 5
    # Seconds before the second try, doubled each time, unless the server says how long.
    wait: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("--endpoint: expected an address such as https://host/v1 or http://localhost:8000/v1.")
        if parts.username or parts.password or parts.query:
            raise UsageError(
                "--endpoint: the address must hold no password and no query; a key is read from the environment."
            )
        if self.key and parts.scheme == "http" and not _is_here(parts.hostname):
            raise UsageError(f"--endpoint: the key would go to {parts.hostname} in the clear; use https.")
        if self.key and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise UsageError("the key holds a space, a line end or a letter that no header can carry; set it again.")

    @property
    def address(self) -> str:
        """The full address of the chat completions."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def ask(endpoint: Endpoint, rules: str, question: str, *, sleep: Callable[[float], None] = time.sleep) -> str:
    """The text of one answer.

    A busy, broken or silent server is asked again, with growing pauses. Raises NoAnswer when all tries are used up or
    the answer holds no text, UsageError when the server will never answer this (no such key, model or address).
    """
    problem, pause = "", 0.0
    for attempt in range(endpoint.tries):
        if attempt:
            sleep(pause)
        pause = min(LONGEST_WAIT, endpoint.wait * 2.0**attempt)
        try:
            return _text_of(_post(endpoint, rules, question))
        except urllib.error.HTTPError as error:
            with error:
                problem = f"it answered {error.code}"
                if error.code not in AGAIN:
                    raise UsageError(_refusal(endpoint, error.code)) from None
                pause = _wait_of(error.headers.get("Retry-After"), pause)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = f"{type(error).__name__}"
    raise NoAnswer(f"{endpoint.address}: no answer after {endpoint.tries} tries ({problem}).")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would take the key along to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(endpoint: Endpoint, rules: str, question: str) -> bytes:
    messages = [{"role": "system", "content": rules}, {"role": "user", "content": question}]
    body = json.dumps({"model": endpoint.model, "messages": messages, "temperature": 1.0}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "editsafety"}
    request = urllib.request.Request(endpoint.address, data=body, headers=headers, method="POST")
    if endpoint.key:
        request.add_unredirected_header("Authorization", f"Bearer {endpoint.key}")
    with urllib.request.build_opener(_Stay).open(request, timeout=endpoint.timeout) as answer:
        data: bytes = answer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError("more bytes than an answer has")
    return data


def _text_of(data: bytes) -> str:
    """The text in a completion. Raises ValueError for anything else; a refusal of the model is an empty text."""
    try:
        message = json.loads(data)["choices"][0]["message"]
        said = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("no completion") from error
    if said is not None and not isinstance(said, str):
        raise ValueError("no text")
    return said or ""


def _refusal(endpoint: Endpoint, code: int) -> str:
    hint = {
        401: "It does not take the key: is the environment variable set?",
        403: "It does not take the key: is the environment variable set?",
        404: f"Is {endpoint.model!r} one of its models, and the address right?",
    }.get(code, "Redirects are not followed, because of the key." if 300 <= code < 400 else "Look at its log.")
    return f"{endpoint.address}: it answered {code}. {hint}"


def _wait_of(seconds: str | None, otherwise: float) -> float:
    """How long the server wants us to wait, within reason."""
    try:
        told = float(seconds or "")
    except ValueError:
        return otherwise
    return min(LONGEST_WAIT, told) if told >= 0 else otherwise


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
