"""Every option that README, docs/ and data/ speak of in their text is one that the command, or pytest, really has.

Code blocks are tried in tests/docs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from editsafety.cli.app import app
from tests.system.commands import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "data").rglob("*.md"))]


def command_lines(page: Path) -> Iterator[str]:
    """What a page says to type in its text, from `editsafety` or `pytest` on."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", text):
        typed = re.search(r"(?:^|[\s/])((?:editsafety|pytest) .*)", " ".join(span.split()))
        if typed:
            yield typed.group(1)


def flags(words: list[str]) -> list[str]:
    """The options among the words of a command line, without their values."""
    return [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]


TYPED = sorted({(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in command_lines(page)})


@pytest.mark.parametrize(("page", "line"), [typed for typed in TYPED if typed[1].startswith("editsafety ")])
def test_every_option_of_a_command_line_exists(page, line):
    _, *words = shlex.split(line, comments=True)
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
    assert set(flags(words)) <= known, f"{page}: {command.name} has none of these"


@pytest.mark.parametrize(("page", "line"), [typed for typed in TYPED if typed[1].startswith("pytest ")])
def test_every_option_for_pytest_exists(page, line, pytestconfig):
    _, *words = shlex.split(line, comments=True)
    missing = object()
    assert [flag for flag in flags(words) if pytestconfig.getoption(flag, missing) is missing] == [], page


def test_every_option_that_a_page_speaks_of_exists(pytestconfig):
    """In the text, apart from any command line: `--keep-going`."""
    known = {flag for command in every_command(typer.main.get_command(app)) for o in command.params for flag in o.opts}
    missing = object()
    for page in PAGES:
        for flag in re.findall(r"`(--[a-z](?:[a-z-]*[a-z])?)(?![\w<-])", page.read_text(encoding="utf-8")):
            assert flag in known or pytestconfig.getoption(flag, missing) is not missing, (
                f"{page.relative_to(ROOT)}: no command has {flag}"
            )


def test_the_table_of_options_leaves_none_of_a_run_out():
    table = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    run = typer.main.get_command(app).commands["run"]
    longest = {max(option.opts, key=len) for option in run.params}
    assert {flag for flag in longest if f"`{flag}" not in table} == set()


def every_command(command) -> Iterator:
    """A command and all below it."""
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from every_command(one)
