"""The options of a safety run under pytest, and the settings that they come to. Imports nothing heavy."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any, Literal

import pytest

from editsafety.runs.settings import Option, Output, Settings, options_of, read_options
from editsafety.supervision.labs import wants_one_process


def add_options(parser: pytest.Parser, declarations: tuple[type, ...] = (Settings, Output)) -> None:
    """Every option has the prefix `--editsafety-`; the ini file may hold the same as `editsafety_...`."""
    group = parser.getgroup("editsafety", "crash tests for model editing")
    for one in (one for declaration in declarations for one in options_of(declaration)):
        action = "append" if one.repeatable else "store_true" if one.type is bool else "store"
        text = f"{one.help} (default {one.standard})" if one.standard else one.help
        # Everything is text until Settings are made of it: there numbers are read, from a command line and an ini file.
        shown = text.replace("%", "%%")  # argparse fills help texts in
        group.addoption(one.pytest, action=action, dest=_destination(one.flag), default=None, help=shown)
        parser.addini(_destination(one.flag), text, type=_ini_type(one), default=None)


def option(config: pytest.Config, name: str) -> Any:
    """An option's value as it was typed: on the command line, else in the ini file, else None."""
    given = config.getoption(_destination(name), None)
    if given is None and (given := _configured(config, _destination(name))) == "":
        return None  # what an ini file does not hold; on a command line nothing is a value, and not a valid one
    flags = [one for one in (*options_of(Settings), *options_of(Output)) if one.type is bool and one.flag == name]
    if flags and given is not None:
        given = flags[0].parse(given, flags[0].pytest)
    return None if given is False or given == [] else given


def settings_of(option: Callable[[str], Any], declaration: type[Settings] = Settings) -> Settings:
    """Settings from option values; what was not given keeps its default. Raises UsageError for a senseless number."""
    given = {one.name: option(one.flag) for one in options_of(declaration)}
    return read_options(declaration, given, lambda one: one.pytest)


def _configured(config: pytest.Config, name: str) -> Any:
    """What the ini file holds, typed or quoted.

    pytest takes one type for an option in its own TOML tables and refuses every other. A number is as good with quotes
    as without, and one model need not be a list: what it refuses is read from the file as it stands there.
    """
    try:
        return config.getini(name)
    except (TypeError, ValueError, pytest.UsageError):
        if config.inipath is None or config.inipath.suffix != ".toml":
            raise
        whole = tomllib.loads(config.inipath.read_text(encoding="utf-8"))
        tables = (whole.get("pytest", {}), whole.get("tool", {}).get("pytest", {}))
        return next(table[name] for table in tables if name in table)


def _destination(flag: str) -> str:
    return f"editsafety_{flag.replace('-', '_')}"


def _ini_type(one: Option) -> Literal["linelist", "bool", "string"]:
    return "linelist" if one.repeatable else "bool" if one.type is bool else "string"


def is_in_process(config: pytest.Config) -> bool:
    """Whether editors run in pytest's own process: where that or a debugger is asked for."""
    debugger = config.getoption("usepdb", False) or config.getoption("trace", False)
    return bool(option(config, "in-process") or debugger or wants_one_process())
