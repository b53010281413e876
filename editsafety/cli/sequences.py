"""`editsafety sequence`: edits on top of each other, until the model breaks."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editsafety.cli import options

if TYPE_CHECKING:
    from editsafety.plan import Settings
    from editsafety.progress import Progress
    from editsafety.sequence import Walk


def sequence(
    model: options.Models,
    editor: options.Editors,
    requests: Annotated[
        str, typer.Option(help="a data set, LOADER:FILE, FILE.jsonl [default: what ships for the model]")
    ] = "",
    edits: Annotated[int, typer.Option(min=1, help="how many requests, in the order of the file")] = 100,
    every: Annotated[int, typer.Option(min=1, help="measure after so many")] = 10,
    size: Annotated[int, typer.Option(min=1, help="requests per edit (batches of a batch editor)")] = 1,
    limit: Annotated[float, typer.Option(help="a model is broken past this multiple of its perplexity")] = 2.0,
    go_on: Annotated[bool, typer.Option("--go-on", help="do not stop where the model breaks")] = False,
    texts: Annotated[str, typer.Option(help="texts for perplexity [default: those of the model]")] = "",
    hparams: Annotated[list[str] | None, typer.Option(help="FILE, or editor=FILE; repeatable")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="write every measured step to this file")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Apply edits one on top of the other and say after how many the model breaks.

    Exit codes: 0 every model stands; 10 one breaks; 13 an editor failed on the way, whatever the others came to.
    """
    from editsafety.plan import Settings
    from editsafety.progress import Progress

    settings = Settings(
        tuple(model), tuple(editor), normal=requests, texts=texts, limit=edits, hparams=tuple(hparams or ()),
        device=device, dtype=dtype, revision=revision, offline=offline, trust_remote_code=trust_remote_code,
        seed=seed, controls=0, prepare=True,
    )  # fmt: skip
    progress = Progress(sys.stderr, "quiet" if quiet else "auto")
    walks = _walks(settings, progress, every=every, size=size, stop=math.inf if go_on else limit)
    if output is not None:
        body = [{**asdict(walk), "breaks_at": walk.breaks_at(limit)} for walk in walks]
        output.write_text(json.dumps(_plain(body), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if not quiet:
        Console(highlight=False).print(_table(walks, limit))
    broken = any(walk.breaks_at(limit) is not None for walk in walks)
    # As in a run: where the machinery failed, nothing else that is said can be relied on.
    raise typer.Exit(13 if any(walk.trouble for walk in walks) else 10 if broken else 0)


def _walks(settings: Settings, progress: Progress, *, every: int, size: int, stop: float) -> list[Walk]:
    import tempfile

    from editsafety.errors import EditSafetyError
    from editsafety.lab import Lab
    from editsafety.names import label, slug
    from editsafety.plan import RunPlan
    from editsafety.sequence import Step, Walk, walk
    from editsafety.store import Store

    found: list[Walk] = []
    plan = RunPlan.of(settings)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(plan, Store(Path(folder) / "store.sqlite"), progress)
        for model, name in plan.blocks:
            rows = [case.request for case in plan.cases if case.block == (model, name) and case.stream == "normal"]
            steps: list[Step] = []
            trouble = ""
            try:
                editor = lab.ready(model, name)
                with progress.task(f"{label(name)} on {slug(model)}", len(rows)) as task:
                    for step in walk(lab.bench(model), editor, rows, every=every, size=size, stop=stop):
                        steps.append(step)
                        while task.done < step.edits:
                            task.step(f"perplexity {step.ratio:.3g}x")
            except EditSafetyError as error:
                trouble = str(error)
            found.append(Walk(slug(model), label(name), tuple(steps), trouble))
    return found


def _table(walks: list[Walk], limit: float) -> Table:
    from editsafety.spelling import number, rate, times

    title = f"edits on top of each other; broken past {limit:g}x"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("editor", "model", "breaks by", "edits", "worst", "last", "kept", "recent", "s/edit"):
        name = heading in ("editor", "model")
        table.add_column(heading, justify="left" if name else "right", no_wrap=name)
    for walk in walks:
        at = walk.breaks_at(limit)
        if not walk.steps:
            table.add_row(walk.editor, walk.model, escape(walk.trouble or "no edit was made"))
            continue
        said = str(at) if at is not None else "-"
        last = walk.steps[-1]
        worst = max(step.ratio for step in walk.steps)
        seconds = sum(step.seconds for step in walk.steps) / len(walk.steps)
        figures = (times(worst), times(last.ratio), rate(last.kept), rate(last.recent), number(seconds))
        table.add_row(walk.editor, walk.model, said, str(last.edits), *figures)
        if walk.trouble:
            table.add_row("", "", escape(walk.trouble))
    return table


def _plain(value: object) -> object:
    """JSON has no infinity: such a ratio is written as null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
