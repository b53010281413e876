"""`editsafety sweep`: what `run` computes, by many workers on a Ray cluster, with the report and exit code of `run`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from editsafety import abilities, escaping
from editsafety.cli import options
from editsafety.cli.run import stored
from editsafety.cli.signature import without
from editsafety.cluster.ray_crew import Needs, RayCrew
from editsafety.cluster.sweep import Sweep
from editsafety.errors import ClusterError, StoreError, UsageError
from editsafety.judging.baselines.gate import Gate
from editsafety.judging.controls import CONTROL
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import NOTHING_JUDGED, Verdict
from editsafety.progress import Progress
from editsafety.publishing import github, outlets
from editsafety.reporting import ReportPlace, as_terminal
from editsafety.runs import folders
from editsafety.runs.facts import Ended, JudgedCheck
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Output, Settings
from editsafety.runs.store import Store
from editsafety.runs.stored_records import reading_many

COURSES = ("edits", "every", "size", "singles", "probe", "items", "keep_going")  # a sweep is of single edits


def sweep(
    settings: Annotated[Settings, without("prepare", *COURSES)],
    output: Annotated[Output, without("shard", "in_process")],
    address: Annotated[
        str,
        typer.Option(help="the Ray cluster: auto (this machine is in it), local (a new one), or HOST:PORT"),
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="at most so many", show_default="all there is room for"),
    ] = None,
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="cores that each worker has for itself")] = 1,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of each, 0.5 for two on one", show_default="1 where there are any"),
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="exit 0 when the job ran and the controls behaved")
    ] = False,
) -> None:
    """Compute a run on a Ray cluster: the single edits, controls and order checks of `run`. Exits like `run`.

    Needs the extra `ray`. An interrupted sweep goes on when the same command is given again.
    """
    options.refuse_unwritable(output.comment)
    gate = Gate.asked(output.baseline, output.allow, output.fail_over)
    if ":" in settings.device:
        raise UsageError(f"--device {settings.device}: each worker of a sweep has GPUs of its own. Give cuda, or cpu.")
    plan = RunPlan.of(replace(settings, prepare=True))
    policy = Policy.of(plan.settings)
    refuse_unmeasured(policy, map(abilities.measurement_of, abilities.names()))
    folder = folders.choose(plan, Path("reports"), output.out)
    gpus = 0.0 if settings.device == "cpu" else gpus_per_worker
    needs = Needs(cpus_per_worker, gpus, partial(_memory, plan.settings))
    progress = options.show_progress(quiet=output.quiet)
    with RayCrew.joined(address, needs, workers) as crew, _held(folder, plan):
        progress.say(f"{crew.size} worker{'' if crew.size == 1 else 's'}, each with {crew.slot}")
        ended, is_whole = _computed(plan, policy, crew, folder, progress)
        report = _report(folder, gate, output.comment)
        if is_whole:
            folders.finish(folder, plan)
    if report.verdict is None and not ended.stopped:
        why = [f"{source}: {line}." for source, lines in report.plan.unread.items() for line in lines]
        typer.echo(" ".join(["editsafety: nothing was judged.", *why]), err=True)
        raise typer.Exit(Verdict.INCOMPLETE.exit_code if ended.interrupted else NOTHING_JUDGED)
    if not output.quiet:
        as_terminal.render(report, escaping.console(), ReportPlace(folders.suites(), folders.near(folder)))
        github.annotate(report, sys.stdout)
    if ended.stopped:
        raise options.Interrupted
    raise typer.Exit(0 if report_only and report.sound else report.exit_code)


@contextmanager
def _held(folder: Path, plan: RunPlan) -> Iterator[None]:
    """The folder belongs to this sweep until it has ended."""
    lock = folders.begin(folder, plan)
    try:
        yield
    finally:
        lock.release()


def _computed(plan: RunPlan, policy: Policy, crew: RayCrew, folder: Path, progress: Progress) -> tuple[Ended, bool]:
    """Let the crew compute what is missing: how that ended, and whether every case has a result."""
    ended = Ended(interrupted=False)
    with closing(Store(folder / folders.STORE)) as store:
        sweeping = Sweep(plan, store, crew, progress)
        try:
            sweeping.run()
        except KeyboardInterrupt:
            ended = Ended(interrupted=True, stopped=True)
        except ClusterError as error:  # what was finished is judged all the same
            ended = Ended(interrupted=True)
            typer.echo(f"editsafety: {escaping.line(error)}", err=True)
        store.note(ended)
        for name in asked_by_suites(policy, controls=bool(sweeping.plan.controls)):
            store.note(JudgedCheck(name))
        return ended, not ended.interrupted and sweeping.is_whole()


def asked_by_suites(policy: Policy, *, controls: bool) -> list[str]:
    """What the suites of single edits ask for: their own checks, the limits of the default policy, and those given."""
    own = ("changes_something", "restore", "undeclared", "leftovers", "order")
    limits = [name for one in (Policy.read("default"), policy) for name in (*one.case, *one.group)]
    return [*own, *([CONTROL] if controls else ()), *limits]


@reading_many()
def _report(folder: Path, gate: Gate | None, comment: Path | None) -> RunReport:
    """The report of what is in the store by now, written everywhere. Raises StoreError where that cannot be."""
    report = stored(folder)
    report = report if gate is None else gate.judged(report)
    try:
        outlets.write(report, folder, comment)
    except OSError as error:
        raise StoreError(f"{folder}: the report cannot be written ({error}). The results are kept.") from error
    return report


def _memory(settings: Settings) -> int:
    """Bytes that a worker takes where the model is on the CPU; 0 where nobody knows. Imports torch."""
    from editsafety.lab.worker_count import memory_of_worker
    from editsafety.model.loading import ModelSpec

    return memory_of_worker([ModelSpec.asked(name, settings) for name in dict.fromkeys(settings.models)]) or 0
