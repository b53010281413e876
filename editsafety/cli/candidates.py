"""`editsafety propose`: let a chat model write candidates for hard cases, vet them, and try them on a model."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from editsafety.cli import options
from editsafety.cli.signature import only
from editsafety.runs.settings import Settings

KEY = "EDITSAFETY_API_KEY"


def propose(
    *,
    endpoint: Annotated[str, typer.Option(help="base address of an OpenAI-compatible API: https://host/v1")],
    api_model: Annotated[str, typer.Option(help="name of the chat model there")],
    out: Annotated[Path, typer.Option("--out", "-o", help="where the candidates go (.jsonl)")],
    wanted: Annotated[int, typer.Option(min=1, help="so many candidates")] = 50,
    known: Annotated[
        list[str], typer.Option(help="requests that are there already; repeatable", show_default="hardedit")
    ] = [],  # noqa: B006
    calls: Annotated[int | None, typer.Option(min=1, help="ask at most so often", show_default="by --wanted")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds to wait for the server")] = 60.0,
    tries: Annotated[int, typer.Option(min=1, help="so often is a call tried while the server is busy")] = 5,
    key_variable: Annotated[str, typer.Option(help="environment variable that holds the key, if one is needed")] = KEY,
    screen_on: Annotated[str, typer.Option(help="model to try them on: only what collapses it is kept")] = "",
    editor: options.EditorName = "rome",
    collapse_above: options.CollapseAbove = None,
    settings: Annotated[Settings, only("texts_from", "policy", "seed")],
    quiet: options.Quiet = False,
) -> None:
    """Ask a chat model for hard requests after the recipe of HardEdit; whether the facts are true is for you to see."""
    from editsafety import datasets
    from editsafety.research.hardcases import candidates
    from editsafety.research.hardcases.chat import Endpoint

    options.refuse_unwritable(out)
    names = known or ["hardedit"]
    there = [request for name in names for request in datasets.requests(name)]
    asked = Endpoint(endpoint, api_model, os.environ.get(key_variable, ""), timeout=timeout, tries=tries)
    with options.show_progress(quiet=quiet).task(f"asking {api_model}", wanted) as task:

        def step(kept: int) -> None:
            while task.done < kept:
                task.step()

        found = candidates.propose(asked, wanted, there, calls=calls, seed=settings.seed, step=step)
    candidates.write(out, found, asked, known=names, seed=settings.seed)
    for name, count in (*found.counts.items(), ("kept", len(found.kept))):
        typer.echo(f"{name.replace('_', ' ')}: {count}")
    for reason in found.reasons[:5]:
        typer.echo(f"left out: {reason}")
    if screen_on and found.kept:
        from editsafety.cli.mining import lab_for, plan_for
        from editsafety.research.hardcases import mining

        above = options.collapse_limit(collapse_above, settings.policy)
        chosen = replace(settings, models=(screen_on,), editors=(editor,))
        lab = lab_for(plan_for(chosen, str(out)), None, None, "", quiet=quiet)
        screening = mining.screen(lab, above=above)
        hard = tuple(record.requests[0] for record in screening.collapsed)
        tried = {**mining.provenance(lab), **mining.counts(screening)}
        candidates.write(out, replace(found, kept=hard), asked, known=names, seed=settings.seed, tried=tried)
        for name, figure in screening.summary():
            typer.echo(f"{name}: {figure}")
    typer.echo(f"written: {out}")
