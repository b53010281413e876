"""How a whole file is damaged: bytes flipped, cut, repeated; values of JSON and YAML swapped for others."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Path = tuple[Any, ...]  # of a value inside a document: keys and indices from the outside in


class Whole(bytes):
    """A file, shown by its size alone."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes"


# Values that somebody's file holds one day where another was meant.
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e308, float("nan"), float("inf"),
    "", " ", "x", "0", "nan", "{}", "{} {}", "\x00", "\x1b[31m", "\ud800", "\u202e", "é" * 300, "../../etc/passwd",
    "float32", "cuda:7", "meta", [], [[]], [None], ["x"], {}, {"x": {}}, {"": 0},
)  # fmt: skip
BYTES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b":", b",",
    b"NaN", b"-Infinity", b"1e999", Whole(b"9" * 5000), b"\\ud800", Whole(b"[" * 3000), Whole(b'{"a":' * 3000),
    b"\xed\xa0\x80", b"\xe2\x80\xa8", b"true", b"null",
)  # fmt: skip
YAML = (
    b"!!python/object/apply:os.system [id]\n", b"!!python/name:os.system\n", b"&a [*a]", b"*nobody", b"<<: [1]\n",
    b"? [1, 2]\n: 3\n", b"? {a: b}\n: 3\n", b"---\n", b"...\n", b"%YAML 9.9\n", b"\t", b"2024-02-31", b"2024-01-01",
    b"!!binary x", b"!!set {a}", b"!!omap [a: 1]", b"!!int x", b".nan", b".inf", b"0o9", b"1_0", b"|\n",
    b"&x {a: 1}\n<<: *x\n", b"null: 1\n", b"1: 1\n", b"true: 1\n", Whole(b"[" * 20_000), Whole(b"{" * 20_000),
    Whole(b"- " * 5_000),
)  # fmt: skip


@st.composite
def damaged(draw: DrawFn, wholes: SearchStrategy[bytes], pieces: Sequence[bytes] = BYTES) -> bytes:
    """A file in which up to three stretches of bytes were flipped, cut off, left out, put in, or repeated."""
    data = bytearray(draw(wholes))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["flip", "put in", "leave out", "repeat", "cut off"]))
        stretch = draw(st.integers(1, 64))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "put in":
            data[at:at] = draw(st.sampled_from(pieces) | st.binary(min_size=1, max_size=8))
        elif how == "leave out":
            del data[at : at + stretch]
        elif how == "repeat":
            data[at:at] = data[at : at + stretch] * draw(st.integers(1, 3))
        elif how == "cut off":
            del data[at:]
    return bytes(data)


@st.composite
def changed(draw: DrawFn, documents: SearchStrategy[Any]) -> Any:
    """A document of lists and objects in which up to three values are others, missing, twice there, or elsewhere."""
    document = copy.deepcopy(draw(documents))
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(document))
        if not places:
            return document
        place = draw(st.sampled_from(places))
        inside, key = at(document, place[:-1]), place[-1]
        how = draw(st.sampled_from(["odd", "odd", "odd", "other", "drop", "twice", "wrap", "rename"]))
        if how == "odd":
            inside[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif how == "other":
            inside[key] = copy.deepcopy(at(document, draw(st.sampled_from(places))))
        elif how == "drop":
            del inside[key]
        elif how == "wrap":
            inside[key] = [inside[key]]
        elif isinstance(inside, list):
            inside.insert(key, copy.deepcopy(inside[key]))
        else:
            name = draw(st.sampled_from(["", "x", "\x1b", "__class__", "models", "id", "value", "kind"]))
            inside[name] = copy.deepcopy(inside[key]) if how == "twice" else inside.pop(key)
    return document


def paths(document: Any, here: Path = ()) -> Iterator[Path]:
    """The place of every value inside a document."""
    entries: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        entries = list(document.items())
    elif isinstance(document, list):
        entries = list(enumerate(document))
    for key, value in entries:
        yield (*here, key)
        yield from paths(value, (*here, key))


def at(document: Any, path: Path) -> Any:
    """The value at a place."""
    for key in path:
        document = document[key]
    return document


def written(document: Any) -> bytes:
    """A document as JSON that may hold what JSON must not: NaN, halves of characters."""
    return json.dumps(document).encode()


def lines(rows: Any) -> bytes:
    """Rows as JSON lines; what is no list is one line."""
    return b"".join(written(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows]))
