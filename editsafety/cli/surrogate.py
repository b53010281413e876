"""`editsafety surrogate`: what stored runs say about perplexity as a stand-in, and about weights as a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.errors import UsageError
from editsafety.names import slug
from editsafety.numbers import exact, rate
from editsafety.runs.folders import STORE
from editsafety.runs.store import Store
from editsafety.tensor_files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from editsafety.judging.alarms import Prediction
    from editsafety.research.surrogate import Correlation, Observation, Study


def surrogate(
    folders: Annotated[list[Path], typer.Argument(help="folders of stored runs", metavar="RUN_FOLDER...")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="only this model")] = None,
    editor: Annotated[list[str] | None, typer.Option("--editor", "-e", help="only this editor; repeatable")] = None,
    collapse_above: options.CollapseAbove = None,
    measurement: Annotated[
        list[str] | None, typer.Option(help="also correlate this measurement of single edits; repeatable")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="write every figure to this file (JSON)")] = None,
) -> None:
    """Correlate perplexity with abilities over all edited models, and weight signals with collapse.

    Computes nothing anew: it reads what runs have left. Models are never mixed.
    """
    from editsafety.research.surrogate import studies

    options.refuse_unwritable(out)
    limit = options.collapse_limit_of_runs(collapse_above, folders)
    found = list(_observations(folders, measurement or (), limit))
    if model is not None:
        found = [one for one in found if one.model == slug(model)]
    if editor:
        found = [one for one in found if one.editor in editor]
    if not found:
        raise UsageError(
            f"no edited model with a perplexity in {', '.join(map(str, folders))}"
            f"{' for that model and editor' if model or editor else ''}. Give folders of runs that have results."
        )
    made = studies(found)
    if out is not None:
        body = {"limit": limit, "models": [study.as_json() for study in made]}
        write_atomically(out, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())
    console = escaping.console()
    for study in made:
        _show(console, study, limit)


def _observations(folders: Sequence[Path], measurements: Sequence[str], limit: float) -> Iterable[Observation]:
    from editsafety.research.surrogate import of_cases, of_courses

    for folder in dict.fromkeys(path.resolve() for path in folders):
        path = folder if folder.is_file() else folder / STORE
        if not path.is_file():
            raise UsageError(f"{folder}: there is no {STORE} in it. Give the folder of a run, as `--out` named it.")
        store = Store(path)
        records = store.records()
        singles = [record for record in records if not record.is_course]
        yield from of_cases(singles, probes=measurements, limit=limit)
        yield from of_courses([record for record in records if record.is_course], limit=limit)
        store.close()


def _show(console: Console, study: Study, limit: float) -> None:
    broken = f", {study.broken} of them without a finite perplexity" if study.broken else ""
    console.print(f"\n{escape(study.model)}: {study.n} edited models{broken}")
    if study.correlations:
        _print_correlations(console, study.correlations)
    else:
        console.print("no abilities were measured, so perplexity cannot be compared with any")
    _print_predictions(console, study.predictions, f"weight signals as predictors of collapse (past {limit:g}x)")
    _print_predictions(console, study.ahead, "weight signals one measured step before a sequence collapses")
    console.print(
        "n: collapsed/stood. prec/rec: precision and recall, on the same data. gap: the worst that stood | "
        "the mildest that collapsed, where the alarm tells all apart. p and intervals take observations for "
        "independent; steps of one sequence are not. A broken model has the largest rank; Pearson leaves it out."
    )


def _print_correlations(console: Console, found: Sequence[Correlation]) -> None:
    table = _table("log-perplexity against abilities", left=("probe", "range", "method"), right=("n", "r", "95 %", "p"))
    for one in found:
        if one.value is not None and one.p is not None:
            between = "-" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}"
            p = "<1e-16" if one.p < 1e-16 else f"{one.p:.2g}"
            table.add_row(one.probe, one.span, one.method, str(one.n), f"{one.value:.2f}", between, p)
    console.print(table)
    _print_reasons(console, [(f"{one.probe} {one.span} ({one.method})", one.reason) for one in found])


def _print_predictions(console: Console, found: Sequence[Prediction], title: str) -> None:
    if not found:
        return
    names = ("n", "AUC", "alarm", "prec/rec", "gap")
    table = _table(title, left=("signal",), right=names)
    for one in found:
        if one.threshold is not None and one.auc is not None:
            gap = f"{exact(one.gap[0], 3)} | {exact(one.gap[1], 3)}" if one.gap else "-"
            alarm = f"{one.direction} {exact(one.threshold, 3)}"
            rates = f"{rate(one.precision)}/{rate(one.recall)}"
            table.add_row(one.signal, f"{one.collapsed}/{one.stood}", f"{one.auc:.3f}", alarm, rates, gap)
    if table.row_count:
        console.print(table)
    else:
        console.print(f"{title}:")
    _print_reasons(console, [(one.signal, one.reason) for one in found])


def _table(title: str, *, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in (*left, *right):
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    return table


def _print_reasons(console: Console, found: Sequence[tuple[str, str]]) -> None:
    """What has no figure, once per reason."""
    for reason in dict.fromkeys(reason for _, reason in found if reason):
        names = [name for name, other in found if other == reason]
        console.print(escape(f"no figure for {', '.join(names)}: {reason}"))
