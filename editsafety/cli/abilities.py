"""`editsafety abilities`: what a model can do, and what an edit has cost of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.runs.probes import written_out
from editsafety.tensor_files import write_atomically

if TYPE_CHECKING:
    from editsafety.abilities import Probe
    from editsafety.judging.drop import Drop
    from editsafety.model.handle import ModelHandle
    from editsafety.progress import Progress
    from editsafety.runs.measurement import Measurement

Row = tuple["Measurement", float | None]  # what was found, and what guessing scores


def abilities(
    *,
    model: options.Model,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            "-p",
            help="an ability: a built-in one, english for its eight, READER:FILE or FILE.jsonl; repeatable",
            show_default="all built-in ones: of its world for a pocket model, else in English",
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="a task of lm-evaluation-harness; repeatable (needs lm-eval)")
    ] = None,
    include: Annotated[Path | None, typer.Option(help="folder of YAML files with tasks of your own")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="items of each, evenly spread", show_default="all")] = None,
    edit: Annotated[str, typer.Option(help="a saved edit, an edited checkpoint or an adapter: shows the drop")] = "",
    editor: Annotated[str, typer.Option("--editor", "-e", help="the editor that made it, for one with sidecars")] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="prompts together")] = 64,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="write everything to this file, item by item (JSON)")
    ] = None,
    loading: options.Loading,
    quiet: options.Quiet = False,
) -> None:
    """Ask a model questions of known answers, ability by ability; with --edit, before and after.

    Scores stand beside what guessing gives and their standard error. A drop is given in points, with the error of the
    paired difference, and in noise floors (one item, or the spread of re-runs). This command measures and does not
    judge: it exits 0 when everything could be measured.
    """  # fmt: skip
    from editsafety import abilities as family

    options.refuse_unwritable(out)
    asked = probe or ([] if task else family.made_for(model))
    specs = [name for one in asked for name in written_out(one, model)]
    probes = [family.load(spec, items) for spec in specs]
    handle = loading.load(model)
    progress = options.show_progress(quiet=quiet)

    def look(label: str) -> list[Row]:
        found = _probed(handle, probes, batch_size, progress, label)
        return [*found, *_tasks(handle, task or (), items, include)]

    before = look(handle.name)
    after = _edited(handle, edit, editor, look) if edit else None
    drops = _drops(before, after) if after is not None else None
    if out is not None:
        body = json.dumps(_body(handle, before, after, drops), indent=1, allow_nan=False)
        write_atomically(out, (body + "\n").encode())
    if not quiet:
        escaping.console().print(_table(handle.name, before, after, drops))


def _probed(handle: ModelHandle, probes: Sequence[Probe], size: int, progress: Progress, label: str) -> list[Row]:
    found: list[Row] = []
    with progress.task(f"abilities of {label}", len(probes)) as task:
        for probe in probes:
            found += [(one, probe.chance) for one in probe.figures(handle, size)]
            task.step(probe.name)
    return found


def _tasks(handle: ModelHandle, tasks: Sequence[str], items: int | None, include: Path | None) -> list[Row]:
    if not tasks:
        return []
    from editsafety.abilities.lm_eval import harness

    return [(one, None) for one in harness(handle, tasks, limit=items, include_path=include)]


def _edited(handle: ModelHandle, place: str, editor: str, look: object) -> list[Row]:
    from editsafety.edits.session import EditSession
    from editsafety.received import receiving

    assert callable(look)
    given = receiving.receive(handle, place, (), editor)
    with given.taking(handle), EditSession(handle) as session:
        session.apply(given.edit)
        given.refuse_other_function(handle)
        found: list[Row] = look(given.name)
    return found


def _drops(before: Sequence[Row], after: Sequence[Row]) -> list[Drop]:
    from editsafety.judging.drop import drop

    return [drop(was, now) for (was, _), (now, _) in zip(before, after, strict=True)]


def _body(
    handle: ModelHandle, before: Sequence[Row], after: Sequence[Row] | None, drops: Sequence[Drop] | None
) -> dict[str, object]:
    rows = []
    for i, (was, chance) in enumerate(before):
        row: dict[str, object] = {"before": was.as_json(), "chance": chance}
        if after is not None and drops is not None:
            floors = drops[i].floors
            finite = floors is not None and floors != float("inf")
            row |= {"after": after[i][0].as_json(), "drop": {**asdict(drops[i]), "floors": floors if finite else None}}
        rows.append(row)
    return {"model": handle.spec.name, "fingerprint": handle.identity, "dtype": handle.spec.dtype, "abilities": rows}


def _table(name: str, before: Sequence[Row], after: Sequence[Row] | None, drops: Sequence[Drop] | None) -> Table:
    table = Table(title=f"abilities of {escape(name)}", title_justify="left", box=None, pad_edge=False)
    headings = ["ability", "score", "±", "chance", "n"]
    for heading in headings + (["edited", "drop", "±", "floors"] if after is not None else []):
        table.add_column(heading, justify="left" if heading == "ability" else "right")
    for i, (was, chance) in enumerate(before):
        cells = [was.name, _score(was), _points(was.stderr), "-" if chance is None else f"{chance:.2f}", str(was.n)]
        if after is not None and drops is not None:
            lost = drops[i]
            floors = "-" if lost.floors is None else "broken" if lost.broken else f"{lost.floors:.1f}"
            cells += [_score(after[i][0]), _points(lost.drop, sign=True), _points(lost.stderr), floors]
        table.add_row(*cells)
    for one in (*before, *(after or ())):
        if one[0].reason is not None:
            table.add_row(escape(f"  {one[0].name}: {one[0].reason}"))
    return table


def _score(found: Measurement) -> str:
    return f"{found.value:.3f}" if found.value is not None else "broken" if found.broken else "-"


def _points(value: float | None, *, sign: bool = False) -> str:
    return "-" if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"
