"""The commands, by what they are about."""

from __future__ import annotations

import typer

from editsafety.cli import (
    abilities,
    blackbox,
    candidates,
    curves,
    data,
    editing,
    experiments,
    keys,
    mining,
    models,
    run,
    sequences,
    surrogate,
)

app = typer.Typer(
    name="editsafety",
    help="Crash tests for language-model editing: did the edit take, does the model still work, what did it cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("report")(run.report)
app.command("edit")(editing.edit)
app.command("ppl")(editing.ppl)
app.command("abilities")(abilities.abilities)
app.command("prepare")(editing.prepare)
app.command("screen")(mining.screen)
app.command("mine")(mining.mine)
app.command("propose")(candidates.propose)
app.command("sequence")(sequences.sequence)
app.command("curves")(curves.curves)
app.command("check")(blackbox.check)
app.command("verify")(blackbox.verify)
app.command("apply")(blackbox.apply)
app.command("keys")(keys.keys)
app.command("experiment")(experiments.experiment)
app.command("surrogate")(surrogate.surrogate)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
