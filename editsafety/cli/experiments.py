"""`editsafety experiment`: the experiments of the papers, each by its name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.cli.signature import only
from editsafety.names import slug
from editsafety.runs.settings import Settings
from editsafety.tensor_files import write_atomically

if TYPE_CHECKING:
    from editsafety.research.experiments import Cell, Result


def experiment(
    *,
    name: Annotated[str, typer.Argument(help="which one; --list names them all")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="pocket-..., a hub id, a folder, random:<config>")] = "",
    editor: options.EditorName = "rome",
    everything: Annotated[bool, typer.Option("--list", help="name every experiment and its paper")] = False,
    settings: Annotated[
        Settings,
        only(
            *("hard", "normal", "limit", "texts", "texts_from", "hparams", "probe", "items", "seed"), *options.LOADING
        ),
    ],
    encoder: Annotated[str, typer.Option(help="first-token: a T5 to compare with, hub id or folder")] = "tiny",
    steps: Annotated[int, typer.Option(min=1, help="weights: edits on top of each other")] = 15,
    worst: Annotated[int, typer.Option(min=1, help="pilot: how many of the worst edits are listed")] = 10,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder for finished cases and the result, <experiment>-<model>.json")
    ] = Path("reports/experiments"),
    quiet: options.Quiet = False,
) -> None:
    """Repeat an experiment of the papers on a model of your own. Finished cases are kept and not run again."""
    from editsafety.errors import UsageError
    from editsafety.research import experiments
    from editsafety.runs.folders import STORE
    from editsafety.runs.store import Store

    if everything:
        escaping.console().print(_listing())
        return
    if not name:
        raise UsageError("no experiment was named. `editsafety experiment --list` says which there are.")
    chosen = experiments.load(name)
    if not model:
        raise UsageError(f"no model was given. Name one: editsafety experiment {name} --model pocket-neo.")
    settings = replace(settings, models=(model,), editors=(editor,), controls=0, prepare=True)
    progress = options.show_progress(quiet=quiet)
    context = experiments.Context(settings, Store(out / STORE), progress, encoder=encoder, steps=steps, worst=worst)
    found = chosen(context)
    path = out / f"{name}-{slug(model)}.json"
    write_atomically(path, (json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n").encode())
    if not quiet:
        _show(found, f"{chosen.title} ({chosen.paper})")
        typer.echo(f"written: {path}")


def _show(found: Result, title: str) -> None:
    console = escaping.console()
    table = Table(title=escape(f"{found.model}: {title}"), title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(found.headings):
        text = any(isinstance(row[place], str) for row in found.rows)
        table.add_column(escape(heading), justify="left" if text else "right")
    for row in found.rows:
        table.add_row(*(escape(_cell(cell)) for cell in row))
    console.print(table)
    console.print(escape(f"shows: {found.sentence}"))
    if found.published:
        console.print(escape(f"published: {found.published}"))


def _listing() -> Table:
    from editsafety.research import experiments

    table = Table("experiment", "what", "paper", "command", box=None, pad_edge=False)
    for name in experiments.names():
        one = experiments.load(name)
        command = f"editsafety experiment {name} --model MODEL"
        table.add_row(name, escape(one.title), escape(one.paper), escape(command))
    for name, (paper, what, command) in experiments.ELSEWHERE.items():
        table.add_row(name, escape(what), escape(paper), escape(command))
    return table


def _cell(cell: Cell) -> str:
    from editsafety.numbers import exact

    return "-" if cell is None else cell if isinstance(cell, str) else exact(float(cell))
