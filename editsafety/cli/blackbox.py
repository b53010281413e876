"""`check` (an edited model against the original), `verify` (a published edit), `apply` (an edit into a checkpoint)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from editsafety import __version__
from editsafety.cli import options
from editsafety.errors import UsageError
from editsafety.judging.verdict import Verdict
from editsafety.numbers import exact, number, rate, times
from editsafety.reporting.escaping import line
from editsafety.tensor_files import write_atomically

if TYPE_CHECKING:
    from editsafety.model.handle import ModelHandle
    from editsafety.received import Examined
    from editsafety.received.difference import Change

Requests = Annotated[
    str, typer.Option(help="facts that were edited: data set, LOADER:FILE, FILE.jsonl [default: none are asked]")
]
Texts = Annotated[str, typer.Option(help="texts for perplexity, given likewise [default: those of the model]")]
Limit = Annotated[int | None, typer.Option(help="only the first requests")]
PolicyName = Annotated[str, typer.Option("--policy", help="default, or a .yaml file")]
Json = Annotated[Path | None, typer.Option("--json", help="write everything that was found to this file, too")]
Sidecars = Annotated[str, typer.Option("--editor", "-e", help="the editor that made it, for an edit with sidecars")]
Delta = Annotated[Path, typer.Argument(help="an edit that `editsafety edit -o` or Edit.save wrote (.safetensors)")]
MOST = 12  # tensors in the table; the file has all
RATES = ("efficacy", "efficacy_prefixed", "generalisation", "locality")
_STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.INCOMPLETE: "magenta", Verdict.ERROR: "bold magenta"}


def check(
    before: Annotated[str, typer.Option(help="the unedited model: pocket-..., a hub id, or a local folder")],
    after: Annotated[
        str, typer.Option(help="a model likewise, a saved edit (.safetensors), or a peft adapter's folder")
    ],
    requests: Requests = "",
    texts: Texts = "",
    limit: Limit = None,
    policy: PolicyName = "default",
    editor: Sidecars = "",
    json_file: Json = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Judge an edited model without its editor: which tensors changed, and does it still work?

    Exit codes: 0 pass; 10 COLLAPSE; 11 INEFFECTIVE, DAMAGED or NO-OP; 13 ERROR; 4 the command cannot be meant, or the
    two cannot be compared (another architecture, vocabulary or tokenizer).
    """
    from editsafety.model.loading import ModelSpec

    spec = ModelSpec(before, device, dtype, revision, offline, trust_remote_code)
    _judge(spec, after, requests, texts, limit, policy, editor, json_file)


def verify(
    delta: Delta,
    model: options.Model,
    requests: Requests = "",
    texts: Texts = "",
    limit: Limit = None,
    policy: PolicyName = "default",
    editor: Sidecars = "",
    json_file: Json = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Check a published edit: whole, made for this model, and does the model still work with it?

    The sha256 of every tensor is compared with the one in the file, and the fingerprint of the model with that of the
    model it was made for. Exit codes as for `check`; 4 as well for a file that was altered or belongs to another model.
    """
    from editsafety.model.loading import ModelSpec

    if delta.suffix != ".safetensors":
        raise UsageError(f"{delta}: expected a saved edit (.safetensors). For a whole model or an adapter use `check`.")
    spec = ModelSpec(model, device, dtype, revision, offline, trust_remote_code)
    _judge(spec, str(delta), requests, texts, limit, policy, editor, json_file)


def apply(
    delta: Delta,
    model: options.Model,
    out: Annotated[Path, typer.Option(help="a new folder for the edited checkpoint and its tokenizer")],
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Write an edit into a copy of the model: a checkpoint that can be loaded without editsafety."""
    from editsafety import received
    from editsafety.model.handle import ModelHandle
    from editsafety.model.loading import ModelSpec
    from editsafety.received import receiving

    edit = receiving.saved_edit(delta)
    received.refuse_to_write(edit, out)
    handle = ModelHandle.load(ModelSpec(model, device, dtype, revision, offline, trust_remote_code))
    received.write_checkpoint(handle, edit, out)
    typer.echo(f"written: {out} ({handle.name} with {len(edit.parameters)} edited tensors, {handle.spec.dtype})")


def _judge(
    spec: object,
    place: str,
    requests: str,
    texts: str,
    limit: int | None,
    policy: str,
    editor: str,
    json_file: Path | None,
) -> None:
    """Read everything that can be wrong first, then load, measure, judge, and end with the verdict's exit code."""
    from editsafety import datasets, received
    from editsafety.judging.policy import Policy
    from editsafety.model.handle import ModelHandle
    from editsafety.model.loading import ModelSpec
    from editsafety.received import receiving

    assert isinstance(spec, ModelSpec)
    limits = Policy.read(policy)
    rows = datasets.requests(requests, limit=limit) if requests else ()
    chosen = received.texts_for(spec.name, texts)
    handle = ModelHandle.load(spec)
    given = receiving.receive(handle, place, [*chosen, *(row.filled for row in rows)], editor)
    bench = received.unedited(handle, chosen, limits, prefixed=bool(rows))
    found = received.examine(bench, given, rows, limits)
    _show(found, handle)
    if json_file is not None:
        _write(json_file, found, handle)
    raise typer.Exit(found.group.verdict.exit_code)


def _write(path: Path, found: Examined, handle: ModelHandle) -> None:
    before = {"name": handle.spec.name, "fingerprint": handle.identity, "dtype": handle.spec.dtype}
    body = {**found.as_json(), "line": _verdict_line(found), "before": before}
    try:
        write_atomically(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}). Give another --json.") from error


def _show(found: Examined, handle: ModelHandle) -> None:
    console = Console(highlight=False)
    size = f"{handle.parameters / 1e6:.1f} M parameters, {handle.spec.dtype}, {handle.device.type}"
    count = len(found.records) - 1
    asked = f" · {count} request{'' if count == 1 else 's'}" if count else ""
    head = f"editsafety {__version__} · {handle.name} ({size}) · policy {found.policy.name}{asked}"
    console.print(Text(line(head), style="bold"))
    console.print(Text(line(_origin(found, handle), 600)))
    if found.edited:
        console.print()
        console.print(_changes(found))
    console.print(Text(_rest(found), style="dim"))
    console.print()
    console.print(_figures(found))
    console.print()
    for reason in found.reasons:
        said = Text(f"{reason.verdict.value:<12}", style=_STYLES.get(reason.verdict, "red"))
        console.print(said.append(line(reason.sentence, 600), style="none"))
    verdict = found.group.verdict
    console.print(Text(_verdict_line(found), style=f"bold {_STYLES.get(verdict, 'red')}"))


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
        table.add_row(Text(f"and {len(found.edited) - MOST} more (--json FILE has all)", style="dim"))
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
    for name in ("me_ppl", "ppl_median", "ppl_worst"):
        if name in whole.before and name in whole.after:
            was, now = whole.before[name], whole.after[name]
            ratio = f"  ({times(found.group.ratios()[0])})" if name == "me_ppl" and found.group.ratios() else ""
            table.add_row(name, _value(was.value), f"{_value(now.value)}{ratio}")
    for name in RATES:
        then = [value for one in asked if name in one.before and (value := one.before[name].value) is not None]
        after = found.group.rate(name, REQUESTS)
        if after is not None:
            was_rate = rate(sum(then) / len(then)) if then and name != "locality" else "-"
            table.add_row(name, was_rate, rate(after))
    return table


def _value(value: float | None) -> str:
    return "not finite" if value is None else exact(value)


def _verdict_line(found: Examined) -> str:
    verdict = found.group.verdict
    return f"{verdict.value} · {verdict.meaning} · exit code {verdict.exit_code}"
