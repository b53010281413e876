"""`editsafety doctor`: what is installed, which device, which data, how much room; and what to do about each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from editsafety import escaping
from editsafety.cli import options

STYLES = {"ready": "green", "note": "yellow", "missing": "bold red"}


def doctor(
    loading: options.Loading,
    model: Annotated[str, typer.Option("--model", "-m", help="a model that is going to be edited")] = "",
    editor: Annotated[list[str] | None, typer.Option("--editor", "-e", help="of it; repeatable")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="the folder to which the report is going to be written")
    ] = Path("reports"),
) -> None:
    """Say what is ready for a run, what of it is missing, and what to do. Loads no model, asks no network.

    Exit codes: 0 nothing is missing; 1 something is; 4 an invalid command.
    """
    from editsafety.lab import readiness

    spec = loading.spec(model) if model else None
    found = [*readiness.examine(spec, tuple(editor or ()), out)]
    table = Table("", "", "found", "what to do", title="editsafety doctor", title_justify="left", show_edge=False)
    for one in found:
        table.add_row(Text(one.state, STYLES[one.state]), Text(one.about), Text(one.found), Text(one.todo))
    console = escaping.console()
    console.print(table)
    missing = [one.about for one in found if one.state is readiness.Standing.MISSING]
    console.print(f"missing: {', '.join(missing)}" if missing else "nothing is missing", markup=False)
    raise typer.Exit(1 if missing else 0)
