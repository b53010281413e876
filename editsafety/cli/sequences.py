"""`editsafety sequence`: edits along a schedule until the model breaks, and which of them broke it."""

from __future__ import annotations

import json
import math
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editsafety.cli import options
from editsafety.errors import EditSafetyError, StoreError, UsageError
from editsafety.names import label, slug
from editsafety.numbers import exact, number, rate, times
from editsafety.progress import Progress
from editsafety.runs.course_record import Breaking, CourseRecord, Step
from editsafety.runs.folders import STORE, near
from editsafety.runs.plan import NONE, RunPlan, Settings
from editsafety.runs.schedule import KINDS, Course, Schedule

if TYPE_CHECKING:
    from editsafety.runs.store import Store


@dataclass(frozen=True)
class Walk:
    """A course, what came of it, and the options of the command that it belongs to."""

    course: Course
    record: CourseRecord | None
    words: tuple[str, ...]
    limit: float
    trouble: str = ""

    @property
    def breaks_at(self) -> int | None:
        """After how many edits the model is broken, to the edit where that was found out."""
        if self.record is None:
            return None
        found = self.record.breaking
        return found.edits if found is not None else self.record.breaks_at(self.limit)


def sequence(
    model: options.Models,
    editor: options.Editors,
    requests: Annotated[
        str, typer.Option(help="a data set, LOADER:FILE, FILE.jsonl [default: what ships for the model]")
    ] = "",
    stream: Annotated[str, typer.Option(help="hard or normal: which requests, where the model ships both")] = "normal",
    schedule: Annotated[
        str, typer.Option(help=f"{', '.join(KINDS)} [default: sequential, of batches with --size]")
    ] = "",
    size: Annotated[list[int] | None, typer.Option(min=1, help="requests per edit; repeatable for batch")] = None,
    edits: Annotated[int, typer.Option(min=1, help="how many requests, in the order of the file")] = 100,
    only: Annotated[str, typer.Option(help="the request of this id alone")] = "",
    every: Annotated[int, typer.Option(min=1, help="measure after so many")] = 10,
    limit: Annotated[float, typer.Option(help="a model is broken past this multiple of its perplexity")] = 2.0,
    go_on: Annotated[bool, typer.Option("--go-on", help="do not stop where the model breaks")] = False,
    probe: Annotated[list[str] | None, typer.Option(help="an ability to measure at every step; repeatable")] = None,
    texts: Annotated[str, typer.Option(help="texts for perplexity [default: those of the model]")] = "",
    hparams: Annotated[list[str] | None, typer.Option(help="FILE, or editor=FILE; repeatable")] = None,
    store: Annotated[
        Path | None, typer.Option(help="folder to keep it in, and to go on from [default: reports/sequence-...]")
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", help="write every measured step to this file")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Edit along a schedule, say after how many edits the model breaks and which edit broke it.

    Everything is kept after each step: the same command goes on where it was stopped or killed. Exit codes: 0 every
    model stands; 10 one breaks; 13 an editor failed on the way, whatever the others came to.
    """
    if stream not in ("hard", "normal"):
        raise UsageError(f"--stream {stream}: expected hard or normal.")
    sizes = tuple(size or (1,))
    kind: Any = schedule or ("sequential" if sizes == (1,) else "batch-sequential")
    along = Schedule(kind, sizes, 1 if kind in ("single", "batch") else every)
    settings = Settings(
        tuple(model), tuple(editor), hard=requests if stream == "hard" else "",
        normal=requests if stream == "normal" else "", texts=texts, limit=max(edits, *sizes), seed=seed,
        hparams=tuple(hparams or ()), device=device, dtype=dtype, revision=revision, offline=offline,
        trust_remote_code=trust_remote_code, controls=0, prepare=True, probes=tuple(probe or (NONE,)),
    )  # fmt: skip
    plan = RunPlan.of(settings)
    folder = store or Path("reports") / f"sequence-{plan.digest()[:12]}"
    progress = Progress(sys.stderr, "quiet" if quiet else "auto")
    courses = [_course(plan, block, stream, along, only) for block in plan.blocks]
    words = _words(settings, stream, limit)
    try:
        walks = _walks(plan, courses, folder, progress, limit=limit, stop=not go_on, words=words)
    except KeyboardInterrupt:
        raise options.Interrupted from None
    if output is not None:
        body = [_row(walk) for walk in walks]
        output.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if not quiet:
        console = Console(highlight=False)
        for walk in walks:
            _show(console, walk, folder)
        console.print(_table(walks, limit))
        console.print(f"kept in {near(folder.absolute())}", soft_wrap=True, markup=False)
    # As in a run: where the machinery failed, nothing else that is said can be relied on.
    raise typer.Exit(13 if any(walk.trouble for walk in walks) else 10 if any(map(_broken, walks)) else 0)


def _course(plan: RunPlan, block: tuple[str, str], stream: str, along: Schedule, only: str) -> Course:
    rows = [case.request for case in plan.cases if case.block == block and case.stream == stream]
    chosen = [row for row in rows if only in ("", row.id)]
    if not chosen:
        what = f"no request {only!r} among the first {len(rows)}" if rows else f"no {stream} requests ship for it"
        raise UsageError(f"nothing to edit on {block[0]}: {what}. Give --requests, or another --stream or --only.")
    return Course(*block, stream, along, tuple(chosen[: max(along.sizes)] if along.kind == "batch" else chosen))


def _walks(
    plan: RunPlan,
    courses: list[Course],
    folder: Path,
    progress: Progress,
    *,
    limit: float,
    stop: bool,
    words: tuple[str, ...],
) -> list[Walk]:
    from editsafety.lab.courses import Terms
    from editsafety.lab.lab import Lab
    from editsafety.runs.store import Store

    kept = Store(folder / STORE)
    _refuse_other(kept, plan, folder)
    lab = Lab(plan, kept, progress)
    found: list[Walk] = []
    for course in courses:
        lab.terms[course.model] = replace(Terms.of(plan, course.model), limit=limit, stop=stop)
        own = ("--model", course.model, "--editor", course.editor, *words)
        try:
            record = lab.course(course)
        except EditSafetyError as error:
            found.append(Walk(course, None, own, limit, str(error)))
        else:
            found.append(Walk(course, record, own, limit, record.failure.message if record.failure else ""))
    return found


def _refuse_other(store: Store, plan: RunPlan, folder: Path) -> None:
    """What is known of the unedited model depends on texts and settings; two plans in one folder would mix them."""
    store.put_new("sequence", plan.digest())
    if store.get("sequence") != plan.digest():
        raise StoreError(
            f"{folder}: holds another sequence (other options, data or editor files). Give another --store."
        )


def _words(settings: Settings, stream: str, limit: float) -> tuple[str, ...]:
    """The options that a reproducer needs beside model, editor and schedule, where they are not the default."""
    plain = Settings((), (), prepare=True, controls=0, probes=(NONE,))
    words: list[str] = ["--stream", stream] if stream != "normal" else []
    if settings.hard or settings.normal:
        words += ["--requests", settings.hard or settings.normal]
    for name in ("texts", "device", "dtype", "revision", "seed"):
        if getattr(settings, name) != getattr(plain, name):
            words += [f"--{name}", str(getattr(settings, name))]
    words += [f"--{name.replace('_', '-')}" for name in ("offline", "trust_remote_code") if getattr(settings, name)]
    words += [word for given in settings.hparams for word in ("--hparams", given)]
    return (*words, *(("--limit", f"{limit!r}") if limit != 2.0 else ()))


def reproducer(walk: Walk, breaking: Breaking) -> str:
    """The command that does no more than break the model again."""
    along = walk.course.schedule
    words = ["editsafety", "sequence", *walk.words]
    if along.kind == "single":
        words += ["--schedule", "single", "--edits", str(len(walk.course.requests)), "--only", breaking.requests[0].id]
    elif along.kind == "batch":
        words += ["--schedule", "batch", "--size", str(breaking.edits)]
    else:
        size = ["--size", str(along.sizes[0])] if along.kind == "batch-sequential" else []
        words += ["--schedule", along.kind, *size, "--edits", str(breaking.edits), "--every", str(breaking.edits)]
    return shlex.join(words)


def _broken(walk: Walk) -> bool:
    return walk.breaks_at is not None


def _show(console: Console, walk: Walk, folder: Path) -> None:
    """The curve of a course, and what broke the model."""
    if walk.record is None or not walk.record.steps:
        return
    course, record = walk.course, walk.record
    title = f"{label(course.editor)} on {slug(course.model)}: {course.stream}, {course.schedule.kind}"
    abilities = [name for name in record.before if name in record.steps[0].found and record.before[name].unit == "rate"]
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for heading in ("edits", "perplexity", "recent", "kept", "drift", *abilities):
        table.add_column(heading, justify="right", no_wrap=True)
    for step, ratio in zip(record.steps, record.ratios, strict=True):
        drift = number(_value(step, "drift_relative"))
        rates = [rate(_value(step, name)) for name in ("recent", "kept")]
        table.add_row(str(step.edits), times(ratio), *rates, drift, *(rate(_value(step, name)) for name in abilities))
    console.print(table)
    if record.breaking is not None:
        for line in _story(walk, record.breaking, folder):
            console.print(line, soft_wrap=True, markup=False)
    for remark in record.remarks:
        console.print(f"note    {remark}", soft_wrap=True, markup=False)
    console.print()


def _story(walk: Walk, breaking: Breaking, folder: Path) -> list[str]:
    facts = [f"{one.filled} -> {one.target_new.strip()} ({one.id})" for one in breaking.requests[:3]]
    more = f" and {len(breaking.requests) - 3} more" if len(breaking.requests) > 3 else ""
    alone = f"; alone {times(breaking.alone)}" if breaking.alone is not None else "; alone the editor fails"
    at = "breaks" if walk.course.schedule.kind in ("single", "batch") else f"breaks at edit {breaking.edits}"
    lines = [f"{at}: {', '.join(facts)}{more}"]
    lines.append(f"perplexity {times(breaking.ratio_before)} before, {times(breaking.ratio)} after{alone}")
    lines += [f"delta   {near((folder / breaking.delta).absolute())}"] if breaking.delta else []
    return [*lines, f"replay  {reproducer(walk, breaking)}"]


def _table(walks: list[Walk], limit: float) -> Table:
    title = f"broken past {exact(limit)}x"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("editor", "model", "breaks at", "edits", "worst", "last", "kept", "recent", "s/edit"):
        name = heading in ("editor", "model")
        table.add_column(heading, justify="left" if name else "right", no_wrap=name)
    for walk in walks:
        names = escape(label(walk.course.editor)), slug(walk.course.model)
        if walk.record is None or not walk.record.steps:
            table.add_row(*names, escape(walk.trouble or "no edit was made"))
            continue
        record, at = walk.record, walk.breaks_at
        last = record.steps[-1]
        timed = [step.seconds for step in record.steps if step.seconds is not None]
        figures = (times(record.worst), times(record.ratios[-1]), *(rate(_value(last, n)) for n in ("kept", "recent")))
        seconds = number(sum(timed) / len(timed) if timed else None)
        table.add_row(*names, "-" if at is None else str(at), str(last.edits), *figures, seconds)
        if walk.trouble:
            table.add_row("", "", escape(walk.trouble))
    return table


def _value(step: Step, name: str) -> float | None:
    found = step.found.get(name)
    return None if found is None else found.value


def _row(walk: Walk) -> dict[str, Any]:
    """A walk as JSON values; a ratio that is infinite is null, and its step says that the model is broken."""
    course, record = walk.course, walk.record
    row: dict[str, Any] = {"model": slug(course.model), "editor": label(course.editor), "stream": course.stream}
    row |= {"schedule": course.schedule.as_json(), "breaks_at": walk.breaks_at, "trouble": walk.trouble}
    if record is None:
        return {**row, "steps": [], "ended": "failed"}
    steps = []
    for step, ratio in zip(record.steps, record.ratios, strict=True):
        figures = {name: one.value for name, one in step.found.items()}
        broken = any(one.broken for one in step.found.values())
        about = {"edits": step.edits, "ratio": _finite(ratio), "broken": broken, "seconds": step.seconds}
        steps.append({**figures, **about, "requests": list(step.block)})
    row |= {"ended": record.ended, "worst": _finite(record.worst), "remarks": list(record.remarks), "steps": steps}
    if record.breaking is not None:
        found = record.breaking
        row["breaking"] = {
            "edits": found.edits,
            "requests": [request.id for request in found.requests],
            **{name: _finite(getattr(found, name)) for name in ("ratio_before", "ratio", "alone")},
            "delta": found.delta,
            "reproducer": reproducer(walk, found),
        }
    return row


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
