"""The commands, by what they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from editsafety import __version__
from editsafety.cli import (
    abilities,
    baseline,
    bench,
    calibrate,
    candidates,
    curves,
    data,
    doctor,
    editing,
    experiments,
    export,
    keys,
    merge,
    mining,
    models,
    received,
    run,
    sequences,
    surrogate,
    sweep,
    trace,
)
from editsafety.cli.signature import flatten

PREPARE, RESEARCH = "Prepare", "Research"
COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "Run and judge": {
        "run": run.run,
        "report": run.report,
        "merge": merge.merge,
        "sweep": sweep.sweep,
        "export": export.export,
        "sequence": sequences.sequence,
        "check": received.check,
        "verify": received.verify,
    },
    "Edit and look": {
        "edit": editing.edit,
        "apply": received.apply,
        "diff": received.diff,
        "ppl": editing.ppl,
        "abilities": abilities.abilities,
        "curves": curves.curves,
    },
    PREPARE: {"doctor": doctor.doctor, "prepare": editing.prepare, "calibrate": calibrate.calibrate},
    RESEARCH: {
        "screen": mining.screen,
        "mine": mining.mine,
        "propose": candidates.propose,
        "keys": keys.keys,
        "trace": trace.trace,
        "surrogate": surrogate.surrogate,
        "experiment": experiments.experiment,
        "bench": bench.bench,
    },
}

app = typer.Typer(
    name="editsafety",
    help="Crash tests for language-model editing: did the edit take, does the model still work, what did it cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"editsafety {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(flatten(command))
app.add_typer(baseline.app, name="baseline", rich_help_panel="Run and judge")
app.add_typer(data.app, name="data", rich_help_panel=PREPARE)
app.add_typer(models.app, name="models", rich_help_panel=PREPARE)
