"""What is declared as an option is a parameter of a command, without a list of options in between."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from editsafety.cli.options import Loading
from editsafety.cli.run import pytest_words
from editsafety.cli.signature import flatten, only, without
from editsafety.errors import UsageError
from editsafety.runs.settings import Output, Settings, options_of
from tests.declared import Brighter

TAKEN: list[Any] = []


def everything(*, settings: Brighter, output: Output, each: bool = False) -> None:
    """A command."""
    TAKEN[:] = [settings, output, each]


def some(
    *, settings: Annotated[Settings, only("seed", "size", "limit")], loading: Loading, where: str = "here"
) -> None:
    """A command."""
    TAKEN[:] = [settings, loading, where]


def most(*, settings: Annotated[Settings, without("prepare")]) -> None:
    """A command."""
    TAKEN[:] = [settings]


def typed(command: Any, *words: str) -> list[Any]:
    """What a command is called with."""
    TAKEN.clear()
    app = typer.Typer()
    app.command()(flatten(command))
    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, UsageError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return TAKEN


def names(command: Any) -> list[str]:
    app = typer.Typer(add_completion=False)
    app.command()(flatten(command))
    return [name for parameter in typer.main.get_command(app).params for name in parameter.opts if name != "--help"]


def test_an_option_that_is_declared_is_an_option_of_the_command() -> None:
    assert "--shine" in names(everything)
    settings, output, each = typed(everything, "--model=m", "-e", "rome", "--shine", "5", "--out", "o", "--each")
    assert settings == Brighter(("m",), ("rome",), shine=5)
    assert (output, each) == (Output(Path("o")), True)
    assert pytest_words(settings) == ["--editsafety-model=m", "--editsafety-editor=rome", "--editsafety-shine=5"]


def test_every_option_of_a_run_can_be_typed() -> None:
    known = names(everything)
    for one in (*options_of(Brighter), *options_of(Output)):
        assert one.command_line in known
    assert {"-m", "-e", "-o", "-q"} <= set(known)


def test_a_command_takes_those_that_it_asks_for() -> None:
    assert [name for name in names(some) if name.startswith("--")] == [
        "--limit", "--seed", "--size", "--device", "--dtype", "--revision", "--offline", "--trust-remote-code",
        "--device-map", "--where",
    ]  # fmt: skip
    settings, loading, where = typed(some, "--size", "2", "--size", "4", "--device", "cpu", "--offline")
    assert settings == Settings((), (), size=(2, 4))
    assert (loading, where) == (Loading(device="cpu", offline=True), "here")
    assert "--prepare" not in names(most)
    assert "--controls" in names(most)


def test_a_number_is_refused_in_the_words_of_its_declaration() -> None:
    with pytest.raises(UsageError, match=r"^--limit is 0; expected at least 1"):
        typed(some, "--limit", "0")
    with pytest.raises(UsageError, match=r"^--shine is 2; expected at least 3"):
        typed(everything, "--model=m", "--editor=e", "--shine=2")


def test_what_has_to_be_given_is_asked_for() -> None:
    app = typer.Typer()
    app.command()(flatten(most))
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert "--model" in done.output


def test_options_become_words_of_pytest_and_come_back() -> None:
    words = pytest_words(Settings(("m", "n"), ("e",), hard="-x y", seed=-1, keep_going=True, size=(1,)))
    assert words == [
        "--editsafety-model=m", "--editsafety-model=n", "--editsafety-editor=e", "--editsafety-hard=-x y",
        "--editsafety-seed=-1", "--editsafety-size=1", "--editsafety-keep-going",
    ]  # fmt: skip


def test_a_flattened_command_keeps_its_name_and_what_it_says() -> None:
    flat = flatten(some)
    assert (flat.__name__, flat.__doc__) == ("some", "A command.")
