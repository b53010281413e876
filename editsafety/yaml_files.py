"""YAML that people write by hand, read so that no file can exhaust, deceive or hang whoever reads it.

Only plain values are made, never objects. A file is read up to a size, a depth and a number of values, all far beyond
what anybody writes; the last one counts what aliases repeat.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from editsafety.errors import UsageError

LARGEST = 1 << 18  # bytes
DEEPEST = 30  # lists and mappings inside each other
MOST = 20_000  # values, those behind an alias counted each time

# What PyYAML's own constructors let through of int(), float(), a date that there is not, or `!!bool maybe`.
_WRONG_VALUE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read(path: Path, name: str, *, twins: bool = False) -> Any:
    """The value in the YAML (or JSON) file at `path`, which messages call `name`.

    A key that is given twice is refused unless `twins`: of two limits the first would vanish unseen. Raises UsageError
    for a file that cannot be read, is no YAML, is too large or too deep, holds itself, or has a list for a key.
    """
    text = _text(path, name)
    try:
        return copy.deepcopy(_parsed(text, name, twins))
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: cannot be read as YAML or JSON: {' '.join(str(error).split())}") from error
    except _WRONG_VALUE as error:
        reason = f"a value is not what its tag says ({error})"
        raise UsageError(f"{name}: cannot be read as YAML or JSON: {reason}.") from error


@lru_cache(maxsize=256)
def _parsed(text: str, name: str, twins: bool) -> Any:
    """A run asks for the same few files a hundred times; each is read again, and parsed again when its text changes."""
    _refuse_excess(text, name)
    return yaml.load(text, _Twins if twins else _Single)  # both are SafeLoaders: no objects are made


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UsageError(f"{name}: has more than {LARGEST // 1024} KiB; settings take a few. Is it another file?")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: cannot be read as YAML or JSON: byte {error.start} is not UTF-8 text.") from error
    except FileNotFoundError as error:
        raise UsageError(f"{name}: there is no such file.") from error
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}.") from error


def _refuse_excess(text: str, name: str) -> None:
    """Follow the events, which takes no recursion, before any value is made of them."""
    anchors: dict[str | None, tuple[int, int] | None] = {}  # number of values and depth of what an alias stands for
    open_: list[tuple[str | None, int, int]] = []  # anchor, number of values, depth so far
    size, depth = 0, 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            if event.anchor is not None:
                anchors[event.anchor] = None
            open_.append((event.anchor, 1, 1))
            size, depth = 0, 0
        elif isinstance(event, yaml.ScalarEvent):
            size, depth = 1, 0
            if event.anchor is not None:
                anchors[event.anchor] = size, depth
        elif isinstance(event, yaml.AliasEvent):
            known = anchors.get(event.anchor, (1, 0))  # of an anchor that there is not, the loader says so itself
            if known is None:
                raise UsageError(f"{name}: {event.anchor!r} holds itself ({_place(event)}). Write its value out.")
            size, depth = known
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size, depth = open_.pop()
            if anchor is not None:
                anchors[anchor] = size, depth
        else:
            continue
        if open_ and not isinstance(event, yaml.CollectionStartEvent):
            anchor, before, deepest = open_[-1]
            open_[-1] = anchor, before + size, max(deepest, depth + 1)
        if len(open_) > DEEPEST or (open_ and open_[-1][2] > DEEPEST):
            raise UsageError(f"{name}: more than {DEEPEST} lists or mappings inside each other ({_place(event)}).")
        if open_ and open_[-1][1] > MOST:
            raise UsageError(f"{name}: more than {MOST} values, with what its aliases repeat ({_place(event)}).")


def _place(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark is not None else "somewhere"


class _Twins(yaml.SafeLoader):
    """YAML whose keys are words or numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                kind = "a list" if isinstance(key, yaml.SequenceNode) else "a mapping"
                raise yaml.constructor.ConstructorError(None, None, f"a key is {kind}, not a name", key.start_mark)
        return super().construct_mapping(node, deep)


class _Single(_Twins):
    """The same, and no key is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)
