"""The options of a safety run under pytest, and the settings that they come to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import pytest

from editsafety.errors import UsageError

if TYPE_CHECKING:
    from editsafety.runs.plan import Settings

# name, kind, help: each is an option --editsafety-<name> and an ini value editsafety_<name>.
OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("model", "many", "pocket-..., a hub id, a local folder or random:<config>; may be repeated"),
    ("editor", "many", "an editor's name, path/to/file.py:Class, rect(memit), or all; may be repeated"),
    ("hard", "text", "requests that may collapse a model: a data set, LOADER:FILE or FILE.jsonl"),
    ("normal", "text", "ordinary requests, given likewise"),
    ("texts", "text", "texts for perplexity, given likewise"),
    ("text-limit", "number", "how many texts (default 50)"),
    ("limit", "number", "how many requests of each stream (default all)"),
    ("hparams", "many", "FILE, or editor=FILE: hyperparameters in place of the shipped ones"),
    ("policy", "text", "default, or a .yaml file"),
    ("device", "text", "auto, cpu, cuda, cuda:N or mps"),
    ("dtype", "text", "float32, bfloat16 or float16"),
    ("revision", "text", "revision of the model on the hub"),
    ("offline", "flag", "never ask the network"),
    ("trust-remote-code", "flag", "run code from the model's repository (the report says so)"),
    ("seed", "number", "seed of everything random (default 0)"),
    ("batch-size", "number", "texts per forward pass (default 64)"),
    ("controls", "number", "how many hard cases the control editors get (default 3)"),
    ("edits", "number", "of courses: how many requests at most (default all)"),
    ("every", "number", "of courses: measure after so many requests (default 10)"),
    ("size", "many", "of courses: requests of a batch; may be repeated (default 1, 10 and 50)"),
    ("singles", "number", "of courses: single edits of each stream that are probed for abilities (default 5)"),
    ("probes", "many", "abilities: pocket-world/abilities/nli, READER:FILE, or none (default those of the model)"),
    ("probe-limit", "number", "items of each ability (default 100)"),
    ("go-on", "flag", "of courses: do not stop where the model breaks"),
    ("prepare", "flag", "run the slow part of an editor first where it is missing"),
    ("out", "text", "folder of this run (default reports/<time>-<model>)"),
    ("quiet", "flag", "no progress and no summary"),
)

INI_TYPES: dict[str, Literal["linelist", "bool", "string"]] = {
    "many": "linelist",
    "flag": "bool",
    "text": "string",
    "number": "string",
}


def add_options(parser: pytest.Parser) -> None:
    """Every option has the prefix `--editsafety-`; the ini file may hold the same."""
    group = parser.getgroup("editsafety", "crash tests for model editing")
    for name, kind, text in OPTIONS:
        dest = f"editsafety_{name.replace('-', '_')}"
        action = {"many": "append", "flag": "store_true"}.get(kind, "store")
        more: dict[str, Any] = {"type": int} if kind == "number" else {}
        group.addoption(f"--editsafety-{name}", action=action, dest=dest, default=None, help=text, **more)
        parser.addini(dest, text, type=INI_TYPES[kind], default=None)


def option(config: pytest.Config, name: str) -> Any:
    """An option's value: the command line, else the ini file, else None."""
    dest = f"editsafety_{name.replace('-', '_')}"
    given = config.getoption(dest, None)
    if given is not None:
        return given
    found = config.getini(dest)
    number = next(kind for n, kind, _ in OPTIONS if n == name) == "number"
    return int(found) if number and found else found or None


def settings_of(option: Callable[[str], Any]) -> Settings:
    """Settings from option values; what was not given keeps its default."""
    from editsafety.runs.plan import Settings

    given = {dest.replace("-", "_"): option(dest) for dest, _, _ in OPTIONS}
    for name in ("model", "editor", "hparams", "probes"):
        given[name] = tuple(given[name] or ())
    given["size"] = tuple(_whole(text) for text in given["size"]) if given["size"] else None
    given |= {"models": given.pop("model"), "editors": given.pop("editor")}
    known = {one.name for one in fields(Settings)}
    settings = Settings(**{name: value for name, value in given.items() if name in known and value is not None})
    for name in ("text_limit", "limit", "batch_size", "controls", "edits", "every", "singles", "probe_limit"):
        value = getattr(settings, name)
        if value is not None and value < (0 if name == "controls" else 1):
            raise UsageError(f"--editsafety-{name.replace('_', '-')} is {value}; expected at least 1.")
    return settings


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--editsafety-size is {text!r}; expected a whole number of requests.") from None
