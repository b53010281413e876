"""`check` (an edited model against the original), `verify` (a published edit), `apply` (an edit into a checkpoint or
an adapter), `diff` (two models into an edit).
"""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from editsafety import escaping, reporting
from editsafety.cli import options
from editsafety.errors import UsageError
from editsafety.escaping import line
from editsafety.judging.verdict import Verdict
from editsafety.numbers import exact, number, rate, times
from editsafety.reporting import ReportPlace, as_terminal
from editsafety.runs.folders import near

if TYPE_CHECKING:
    from editsafety.model.handle import ModelHandle
    from editsafety.received import Examined
    from editsafety.received.difference import Change
    from editsafety.runs.measurement import Measurement

Requests = Annotated[
    str, typer.Option(help="facts that were edited: data set, LOADER:FILE, FILE.jsonl", show_default="none are asked")
]
Folder = Annotated[Path | None, typer.Option("--out", "-o", help="folder for the report")]
Sidecars = Annotated[str, typer.Option("--editor", "-e", help="the editor that made it, for an edit with sidecars")]
Delta = Annotated[Path, typer.Argument(help="an edit that `editsafety edit --out` or Edit.save wrote (.safetensors)")]
MOST = 12  # tensors in the table; the file has all


def check(
    *,
    before: Annotated[str, typer.Option(help="the unedited model: pocket-..., a hub id, or a local folder")],
    after: Annotated[
        str, typer.Option(help="a model likewise, a saved edit (.safetensors), or a peft adapter's folder")
    ],
    requests: Requests = "",
    limit: options.Limit = None,
    skip_bad_rows: options.SkipBadRows = False,
    texts_from: options.TextsFrom = "",
    policy: options.PolicyName = "default",
    editor: Sidecars = "",
    out: Folder = None,
    loading: options.Loading,
) -> None:
    """Judge an edited model without its editor: which tensors changed, and does it still work?

    Exit codes: 0 pass; 10 COLLAPSE; 11 INEFFECTIVE, DAMAGED or NO-OP; 13 ERROR; 4 an invalid command, or the
    two cannot be compared (another architecture, vocabulary or tokenizer).
    """
    _judge(loading, before, after, requests, texts_from, limit, policy, editor, out, skip_bad_rows=skip_bad_rows)


def verify(
    *,
    delta: Delta,
    model: options.Model,
    requests: Requests = "",
    limit: options.Limit = None,
    skip_bad_rows: options.SkipBadRows = False,
    texts_from: options.TextsFrom = "",
    policy: options.PolicyName = "default",
    editor: Sidecars = "",
    out: Folder = None,
    loading: options.Loading,
) -> None:
    """Check a published edit: whole, made for this model, and does the model still work with it?

    The sha256 of every tensor is compared with the one in the file, and the fingerprint of the model with that of the
    model it was made for. Exit codes as for `check`; 4 as well for a file that was altered or belongs to another model.
    """
    if delta.suffix != ".safetensors":
        raise UsageError(f"{delta}: expected a saved edit (.safetensors). For a whole model or an adapter use `check`.")
    _judge(loading, model, str(delta), requests, texts_from, limit, policy, editor, out, skip_bad_rows=skip_bad_rows)


def apply(
    *,
    delta: Delta,
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="a new folder for the edited checkpoint and its tokenizer")],
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="write a low-rank edit as an adapter of peft's, served beside the model"),
    ] = False,
    loading: options.Loading,
) -> None:
    """Write an edit into a copy of the model, or beside it: what can be loaded without editsafety."""
    from editsafety import received
    from editsafety.received import adapter_files, receiving

    edit = receiving.saved_edit(delta)
    received.refuse_to_write(edit, out)
    handle = loading.load(model)
    if adapter:
        adapter_files.write_adapter(handle, edit, out)
        typer.echo(f"written: {out} (an adapter for {handle.name}: {', '.join(edit.parameters)})")
        return
    received.write_checkpoint(handle, edit, out)
    typer.echo(f"written: {out} ({handle.name} with {len(edit.parameters)} edited tensors, {handle.spec.dtype})")


def diff(
    before: Annotated[str, typer.Argument(help="the unedited model: a folder, a hub id, pocket-...")],
    after: Annotated[str, typer.Argument(help="the edited one, or the folder of a peft adapter")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the file of the edit, .safetensors")],
    texts_from: options.TextsFrom = "",
    *,
    loading: options.Loading,
) -> None:
    """Make an edit of what tells two models apart: in factors where a few make up the change, bit for bit otherwise.

    The file can be verified, applied, and written as an adapter. Exits with 11 where nothing differs.
    """
    from editsafety import received
    from editsafety.edits.edit import LowRank
    from editsafety.received import receiving

    options.refuse_unwritable(out)
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: an edit is saved as .safetensors. Give such a name.")
    handle = loading.load(before)
    texts = received.texts_for(before, texts_from, offline=loading.offline)
    handed = receiving.receive(handle, after, texts)
    edit = receiving.with_factors(handle, handed.edit)
    edit.save(out)
    for delta in edit.deltas:
        how = f"rank {delta.left.shape[1]}" if isinstance(delta, LowRank) else "whole"
        typer.echo(f"{delta.parameter}: {how}")
    typer.echo(f"written: {out} ({len(edit.deltas)} of {handed.compared} tensors of {handle.name} differ)")
    raise typer.Exit(0 if edit.deltas else Verdict.NO_OP.exit_code)


def _judge(
    loading: options.Loading,
    model: str,
    place: str,
    requests: str,
    texts_from: str,
    limit: int | None,
    policy: str,
    editor: str,
    out: Path | None,
    *,
    skip_bad_rows: bool,
) -> None:
    """Read everything that can be wrong first, then load, measure, judge, and end with the verdict's exit code."""
    from editsafety import abilities, received
    from editsafety.judging.measurable import refuse_unmeasured
    from editsafety.judging.policy import Policy
    from editsafety.received import receiving

    limits = Policy.read(policy)
    refuse_unmeasured(limits, map(abilities.measurement_of, abilities.names()))
    offline = loading.offline
    rows = options.read_requests(requests, limit, skip_bad_rows=skip_bad_rows, offline=offline) if requests else ()
    if place.endswith(".safetensors"):
        receiving.saved_edit(Path(place).expanduser(), editor)  # refused before the model is loaded, if at all
    chosen = received.texts_for(model, texts_from, offline=offline)
    handle = loading.load(model)
    given = receiving.receive(handle, place, [*chosen, *(row.filled for row in rows)], editor)
    bench = received.unedited(handle, chosen, limits, prefixed=bool(rows))
    found = received.examine(bench, given, rows, limits)
    asked = {"--before": model, "--after": place, "--requests": requests, "--limit": limit, "--texts-from": texts_from}
    asked |= {"--policy": policy if policy != "default" else "", "--editor": editor}
    words = [word for name, value in asked.items() if value for word in (name, str(value))]
    words += ["--skip-bad-rows"] if skip_bad_rows else []
    words += loading.words()
    found = replace(found, report=replace(found.report, command=shlex.join(["editsafety", "check", *words])))
    console = escaping.console()
    _show(console, found, handle)
    as_terminal.render(found.report, console, ReportPlace(folder=None if out is None else near(out.absolute())))
    if out is not None:
        try:
            reporting.write(found.report, out, ReportPlace())
        except OSError as error:
            raise UsageError(f"{out}: cannot be written ({error.strerror}). Give another --out.") from error
    raise typer.Exit(found.report.exit_code)


def _show(console: Console, found: Examined, handle: ModelHandle) -> None:
    """What was handed over, which tensors it changes, and what is measured before and after."""
    console.print(Text(line(_origin(found, handle), 600)))
    if found.edited:
        console.print()
        console.print(_changes(found))
    console.print(Text(_rest(found), style="dim"))
    if found.pattern:
        console.print(Text(line(f"the change: {found.pattern}", 600)))
    for remark in found.handed.remarks:
        console.print(Text(line(remark, 600)))
    console.print()
    console.print(_figures(found))


def _origin(found: Examined, handle: ModelHandle) -> str:
    """What was handed over; of a saved edit what the file vouches for."""
    handed = found.handed
    if handed.kind != "edit":
        return f"{handed.kind} {handed.name}, compared with {handle.name} tensor by tensor"
    asked = ", ".join(handed.edit.request_ids[:3]) + (" ..." if len(handed.edit.request_ids) > 3 else "")
    cars = f", {len(handed.edit.sidecars)} sidecars" if handed.edit.sidecars else ""
    return (
        f"edit {handed.name} by {handed.edit.editor} ({asked or 'no request named'}{cars}): the sha256 of "
        f"every tensor matches; made for this model ({handle.identity[:12]})"
    )


def _changes(found: Examined) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("changed tensor", overflow="fold")
    for name in ("||dW||", "of ||W||", "rank", "of entries"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in found.edited[:MOST]:
        table.add_row(Text(line(change.name)), *(Text(cell) for cell in _cells(change)))
    if len(found.edited) > MOST:
        table.add_row(Text(f"and {len(found.edited) - MOST} more (--out FOLDER has all)", style="dim"))
    return table


def _cells(change: Change) -> tuple[str, ...]:
    share = f"{number(100 * change.entries / max(math.prod(change.shape), 1))} %"
    if change.norm is None:
        return "not finite", "-", "-", f"{change.not_finite} NaN/inf"
    rank = "-" if change.rank is None else f"{'>=' * change.at_least}{change.rank} of {change.full_rank}"
    return number(change.norm), number(change.relative), rank, share


def _rest(found: Examined) -> str:
    """What is not in the table: tensors that were only rounded, and those that are the same."""
    same = found.handed.compared - len(found.changes)
    said = [f"{same} of {found.handed.compared} tensors are the same"]
    if found.rounded:
        kinds = ", ".join(sorted({change.rounded_to for change in found.rounded}))
        said.append(f"{len(found.rounded)} are only rounded to {kinds}")
    return ", ".join(said)


def _figures(found: Examined) -> Table:
    table = Table("figure", "before", "after", box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    from editsafety.received import REQUESTS

    whole, *asked = found.records
    policy = found.report.policy
    limited = (limit.measure for limit in policy.case.values())
    for name in dict.fromkeys(("me_ppl", "ppl_median", "ppl_worst", *limited)):
        if name in whole.after:
            was, now = whole.before.get(name), whole.after[name]
            ratio = f"  ({times(found.group.ratios()[0])})" if name == "me_ppl" and found.group.ratios() else ""
            table.add_row(name, "-" if was is None else _figure(was), f"{_figure(now)}{ratio}")
    rates = [column.measurement for column in found.report.facts.columns if column.over == "rate"]
    for name in dict.fromkeys((*rates, *(limit.measure for limit in policy.group.values()))):
        then = [value for one in asked if name in one.before and (value := one.before[name].value) is not None]
        after = found.group.rate(name, REQUESTS)
        if after is not None:
            was_rate = rate(sum(then) / len(then)) if then and name != "locality" else "-"
            table.add_row(name, was_rate, rate(after))
    return table


def _figure(found: Measurement) -> str:
    """A value; of what has none why, as far as there is room."""
    if found.value is not None:
        return exact(found.value)
    return "not finite" if found.broken else "-" if found.applies else "does not apply"
