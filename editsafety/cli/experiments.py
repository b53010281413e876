"""`editsafety experiment`: the experiments of the papers, each by its name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editsafety.cli import options

if TYPE_CHECKING:
    from editsafety.research.experiments import Cell, Result


def experiment(
    name: Annotated[str, typer.Argument(help="which one; --list names them all")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="pocket-..., a hub id, a folder, random:<config>")] = "",
    editor: options.Editor = "rome",
    everything: Annotated[bool, typer.Option("--list", help="name every experiment and its paper")] = False,
    hard: Annotated[str, typer.Option(help="requests that collapse the model [default: those of the model]")] = "",
    normal: Annotated[str, typer.Option(help="requests that do not [default: those of the model]")] = "",
    texts: Annotated[str, typer.Option(help="texts for perplexity [default: those of the model]")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="requests of each set [default: all]")] = None,
    encoder: Annotated[str, typer.Option(help="first-token: a T5 to compare with, hub id or folder")] = "tiny",
    steps: Annotated[int, typer.Option(min=1, help="weights: edits on top of each other")] = 15,
    probes: Annotated[list[str] | None, typer.Option(help="dose: abilities, READER:FILE; repeatable")] = None,
    probe_limit: Annotated[int, typer.Option(min=1, help="dose: items of each ability")] = 100,
    worst: Annotated[int, typer.Option(min=1, help="pilot: how many of the worst edits are listed")] = 10,
    output: Annotated[Path | None, typer.Option("--json", help="write the result to this file")] = None,
    store: Annotated[Path | None, typer.Option(help="folder for finished cases [default: reports/experiments]")] = None,
    hparams: options.HparamsFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Repeat an experiment of the papers on a model of your own. Finished cases are kept and not run again."""
    from editsafety.errors import UsageError
    from editsafety.progress import Progress
    from editsafety.research import experiments
    from editsafety.runs.folders import STORE
    from editsafety.runs.plan import Settings
    from editsafety.runs.store import Store

    if everything:
        Console(highlight=False).print(_listing())
        return
    if not name:
        raise UsageError("no experiment was named. `editsafety experiment --list` says which there are.")
    chosen = experiments.load(name)
    if not model:
        raise UsageError(f"no model was given. Name one: editsafety experiment {name} --model pocket-neo.")
    settings = Settings(
        (model,), (editor,), hard=hard, normal=normal, texts=texts, limit=limit,
        hparams=(str(hparams),) if hparams else (), device=device, dtype=dtype, revision=revision, offline=offline,
        trust_remote_code=trust_remote_code, seed=seed, controls=0, prepare=True, probes=tuple(probes or ()),
        probe_limit=probe_limit,
    )  # fmt: skip
    kept = Store((store or Path("reports") / "experiments") / STORE)
    progress = Progress(sys.stderr, "quiet" if quiet else "auto")
    found = chosen(experiments.Context(settings, kept, progress, encoder=encoder, steps=steps, worst=worst))
    if output is not None:
        output.write_text(json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not quiet:
        _show(found, f"{chosen.title} ({chosen.paper})")


def _show(found: Result, title: str) -> None:
    console = Console(highlight=False)
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
