"""`editsafety sequence`: edits along a schedule until the model breaks, and which of them broke it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editsafety import escaping, reporting
from editsafety.abilities import measurement_of
from editsafety.cli import options
from editsafety.cli.signature import only
from editsafety.errors import EditSafetyError, StoreError, UsageError
from editsafety.judging.checks import CaseVerdict
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.names import label, slug
from editsafety.reporting import ReportPlace, as_terminal, courses
from editsafety.runs import folders
from editsafety.runs.case import Block, Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import Ended, Problem, Unusable, Wanted
from editsafety.runs.plan import RunPlan, models_to_ask
from editsafety.runs.probes import NONE
from editsafety.runs.schedule import KINDS, Schedule
from editsafety.runs.settings import Settings, changed_options
from editsafety.supervision.labs import Labs, wants_one_process

if TYPE_CHECKING:
    from editsafety.progress import Progress
    from editsafety.runs.store import Store

MOST = 3  # facts of an edit that are written out
NOT_REPEATED = ("hard", "normal", "limit", "controls", "prepare", "every", "probe")  # said in other words


def sequence(
    *,
    settings: Annotated[
        Settings,
        only(
            *("models", "editors", "every", "keep_going", "items", "texts", "texts_from", "hparams", "policy"),
            *("collapse_above", "seed", "known", "all_facts", "skip_bad_rows", "timeout", *options.LOADING),
        ),
    ],
    requests: Annotated[
        str, typer.Option(help="a data set, LOADER:FILE, FILE.jsonl", show_default="what ships for the model")
    ] = "",
    stream: Annotated[str, typer.Option(help="hard or normal: which requests, where the model ships both")] = "normal",
    schedule: Annotated[
        str, typer.Option(help=f"{', '.join(KINDS)}", show_default="sequential, of batches with --size")
    ] = "",
    size: Annotated[list[int] | None, typer.Option(min=1, help="requests per edit; repeatable for batch")] = None,
    limit: Annotated[int, typer.Option(min=1, help="maximum number of requests, in the order of the file")] = 100,
    alone: Annotated[str, typer.Option("--only", help="the request of this id alone")] = "",
    probe: Annotated[
        list[str] | None,
        typer.Option(help="an ability, which is measured at every step; repeatable", show_default="none"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="folder of the report, and to go on from", show_default="reports/sequence-..."
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Edit along a schedule, say after how many edits the model breaks and which edit broke it.

    Everything is kept after each step: the same command goes on where it was stopped or killed. The report and the exit
    codes are those of `run`.
    """
    if stream not in ("hard", "normal"):
        raise UsageError(f"--stream {stream}: expected hard or normal.")
    sizes = tuple(size or (1,))
    kind: Any = schedule or ("sequential" if sizes == (1,) else "batch-sequential")
    along = Schedule(kind, sizes, 1 if kind in ("single", "batch") else settings.every)
    asked = replace(
        settings, hard=requests if stream == "hard" else "", normal=requests if stream == "normal" else "",
        limit=max(limit, *sizes), controls=0, prepare=True, probe=tuple(probe or (NONE,)),
    )  # fmt: skip
    asked = replace(asked, known=False, all_facts=True) if alone else asked
    offered = RunPlan.of(asked, only=stream)
    lay_out = partial(_laid_out, stream=stream, along=along, alone=alone)
    plan = lay_out(offered)
    refuse_unmeasured(Policy.of(asked), map(measurement_of, offered.all_probes))
    folder = out or Path("reports") / f"sequence-{plan.digest()[:12]}"
    try:
        report = _run(plan, folder, options.show_progress(quiet=quiet), offered, lay_out)
    except KeyboardInterrupt:
        raise options.Interrupted from None
    report = with_command(report)
    place = ReportPlace(folders.suites(), folders.near(folder.absolute()))
    reporting.write(report, folder, place)
    if not quiet:
        console = escaping.console()
        for course in courses.ordered(report):
            _show(console, course, folder)
        as_terminal.render(report, console, place)
    raise typer.Exit(report.exit_code)


def _laid_out(plan: RunPlan, stream: str, along: Schedule, alone: str) -> RunPlan:
    """The plan with these cases and no others: one course per editor and model, or its single edits."""
    cases = [case for block in plan.blocks for case in _cases(plan, block, stream, along, alone)]
    along_schedules = tuple(case for case in cases if case.is_course)
    return replace(
        plan, cases=tuple(case for case in cases if not case.is_course), controls=(), courses=along_schedules
    )


def _cases(plan: RunPlan, block: Block, stream: str, along: Schedule, alone: str) -> list[Case]:
    rows = [case for case in plan.cases if case.block == block and case.stream == stream]
    chosen = [case for case in rows if alone in ("", case.request.id)]
    if not chosen:
        what = f"no request {alone!r} among the first {len(rows)}" if rows else f"no {stream} requests ship for it"
        raise UsageError(f"nothing to edit on {block[0]}: {what}. Give --requests, or another --stream or --only.")
    if along.kind == "single":
        return [replace(case, probed=bool(plan.probes(block[0]))) for case in chosen]
    requests = tuple(case.request for case in chosen)
    return [Case(*block, stream, requests[: max(along.sizes)] if along.kind == "batch" else requests, along)]


def _run(
    begun: RunPlan, folder: Path, progress: Progress, offered: RunPlan, lay_out: Callable[[RunPlan], RunPlan]
) -> RunReport:
    """Run what was begun; where only known facts are wanted, the same schedule along those of the plan on offer."""
    from editsafety.runs.store import Store

    lock = folders.begin(folder, begun)
    store, log = Store(folder / folders.STORE), folder / "output.log"
    plan = begun
    if models_to_ask(offered.settings):
        asking = Labs(offered, store, progress, (), (), 1, log, wants_one_process())
        plan = lay_out(asking.known_only())
    cases = [*plan.cases, *plan.courses]
    if not cases:
        lock.release()
        why = "; ".join(f"{source}: {line}" for source, lines in plan.unread.items() for line in lines)
        raise UsageError(f"nothing to edit: {why}.")
    probed = tuple(case.id for case in plan.cases if case.probed)
    store.note(Wanted(tuple(case.id for case in cases), probed, apart=True))
    store.note(Ended(interrupted=True))
    store.note(Unusable())
    labs = Labs(plan, store, progress, cases, live=(), workers=1, log=log, in_process=wants_one_process())
    try:
        run = labs.computing.record
        records = {case.id: record for case in cases if (record := _record(run, store, case)) is not None}
    finally:
        labs.close()
    store.note(Ended(interrupted=False))
    if len(records) == len(cases):
        shutil.rmtree(folder / folders.EDITS, ignore_errors=True)
        folders.finish(folder, begun)
    lock.release()
    policy = Policy.of(plan.settings)
    return RunReport.of(plan, policy, records, store.facts(), planned=cases)


def _record(run: Any, store: Store, case: Case) -> CaseRecord | None:
    """The record of a case; without one, what stood in its way is noted for the report and the next one is run."""
    try:
        record: CaseRecord = run(case)
    except StoreError:
        raise
    except EditSafetyError as error:
        store.note(Problem(slug(case.model), label(case.editor), str(error)))
        return None
    return record


def with_command(report: RunReport) -> RunReport:
    """The report with the command that runs its worst course again, and those for every one that does not pass."""
    failing = courses.failing(report)
    broken = [course for course in failing if course.record.breaking]
    worst = next(iter([*broken, *failing]), None)
    commands = {course.record.case: reproducer(report.plan, course.record) for course in failing}
    return report if worst is None else replace(report, command=commands[worst.record.case], commands=commands)


def reproducer(plan: RunPlan, record: CaseRecord) -> str:
    """The command that does no more than break the model again; of a course that did not break, all of it."""
    along, stream, breaking = record.schedule, record.stream, record.breaking
    edits = str(breaking.edits if breaking is not None else record.planned)
    model = next(name for name in plan.settings.models if slug(name) == record.model)
    editor = next(name for name in plan.settings.editors if label(name) == record.editor)
    words = ["editsafety", "sequence", "--model", model, "--editor", editor]
    words += ["--stream", stream] if stream != "normal" else []
    if given := plan.settings.hard or plan.settings.normal:
        words += ["--requests", given]
    for option, value in changed_options(plan.settings):
        if option.replayed and option.name not in NOT_REPEATED:
            words += [option.command_line] if value is True else [option.command_line, str(value)]
    words += ["--schedule", along.kind]
    if along.kind == "batch":
        sizes = (breaking.edits,) if breaking is not None else along.sizes
        return shlex.join([*words, *(word for size in sizes for word in ("--size", str(size)))])
    words += ["--size", str(along.sizes[0])] if along.kind == "batch-sequential" else []
    every = edits if breaking is not None else str(along.every)
    return shlex.join([*words, "--limit", edits, "--every", every])


def _show(console: Console, course: CaseVerdict, folder: Path) -> None:
    """Every step of a course, and where the edit that broke the model is kept."""
    record = course.record
    if not record.steps:
        return
    title = f"{record.editor} on {record.model}: {record.stream}, {record.schedule.kind}"
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for heading in courses.STEPS:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in record.abilities:
        table.add_column(heading, justify="right", overflow="fold", min_width=4)  # names give way before figures do
    for cells in courses.table(record, record.abilities):
        table.add_row(*cells)
    console.print()
    console.print(table)
    if record.breaking is not None:
        facts = [f"{one.filled} -> {one.target_new.strip()} ({one.id})" for one in record.breaking.requests[:MOST]]
        left = len(record.breaking.requests) - len(facts)
        kept = f", kept in {folders.near((folder / record.breaking.delta).absolute())}" if record.breaking.delta else ""
        told = ", ".join([*facts, *([f"{left} more"] if left else [])])
        console.print(f"the edit that broke it: {told}{kept}", soft_wrap=True, markup=False)
    for remark in record.remarks:
        console.print(f"note: {remark}", soft_wrap=True, markup=False)
    if course.verdict is Verdict.ERROR:
        console.print(escape(course.sentences[0]), soft_wrap=True)
