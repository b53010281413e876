"""`editsafety run`: the suites as one command with one verdict; `editsafety report`: the same from a store."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from editsafety import abilities, escaping, reporting
from editsafety.cli import options, planning
from editsafety.cli.sequences import with_command
from editsafety.cli.signature import without
from editsafety.errors import StoreError, UnknownNameError
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.needed import needed_of_many
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import NOTHING_JUDGED, STOPPED
from editsafety.progress import Progress
from editsafety.publishing import comment as comments
from editsafety.reporting import ReportPlace, as_terminal
from editsafety.runs import folders
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import Wanted
from editsafety.runs.plan import RunPlan, keep_known
from editsafety.runs.settings import Output, Settings, changed_options
from editsafety.runs.store import Store
from editsafety.runs.stored_records import reading_many
from editsafety.shipped import shipped

SUITES = ("controls", "collapse", "efficacy", "integrity")
# Courses of edits, minutes per editor; and what the default policy has no limit on. Only when asked for.
MORE = ("alignment", "backdoor", "survival", "sequential", "batch", "abilities")


class Listener:
    """A pytest plugin that takes the finished safety session, and what went wrong before any test ran.

    With xdist workers, whose own progress nobody sees, it also shows how many cases are done.
    """

    def __init__(self, progress: Progress) -> None:
        self.safety: Any = None
        self.trouble: list[str] = []
        self._progress = progress
        self._shown = ExitStack()

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_xdist_node_collection_finished(self, node: Any) -> None:
        """There are workers, they know their cases, and what these need has been made."""
        from editsafety.cli.shared_progress import SharedProgress
        from editsafety.plugin.stash import STASH

        followed = node.config.stash.get(STASH, None)
        if followed is not None and self.safety is None:
            self.safety = followed
            self._shown.enter_context(SharedProgress(followed.store.path, self._progress))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A suite that cannot even be collected."""
        if report.failed:
            self.trouble.append(str(report.longrepr))

    def pytest_internalerror(self, excrepr: Any) -> None:
        """An error in pytest or in a plugin, ours included."""
        self.trouble.append(str(excrepr))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The report has been written by then."""
        from editsafety.plugin.stash import STASH

        self._shown.close()
        self.safety = session.config.stash.get(STASH, None)


def run(
    settings: Annotated[Settings, without("prepare")],
    output: Output,
    suite: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join((*SUITES, *MORE))}; repeatable", show_default="those of single edits"),
    ] = None,
    workers: Annotated[str | None, typer.Option("-n", help="pytest-xdist workers, or auto")] = None,
    select: Annotated[str | None, typer.Option("-k", help="only cases whose id matches, as in pytest")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="say what the run is going to take (cases, memory, time), and end")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="exit 0 when the job ran and the controls behaved")
    ] = False,
) -> None:
    """Crash-test editors on models and write a safety report.

    Exit codes: 0 pass; 10 COLLAPSE; 11 INEFFECTIVE, DAMAGED or NO-OP; 12 worse than the baseline; 13 ERROR or
    INCOMPLETE; 14 nothing judged; 2 interrupted; 4 an invalid command. An interrupted run goes on when the same command
    is given again.
    """
    if plan:
        planning.show(settings)
        return
    options.refuse_unwritable(output.comment)
    listener = Listener(options.show_progress(quiet=output.quiet))
    words = [*pytest_words(replace(settings, prepare=True)), *pytest_words(output)]
    code = pytest.main([*arguments(suite or SUITES, workers, select), *words], plugins=[listener])
    safety = listener.safety
    for text in listener.trouble:
        typer.echo(text, err=True)
    if safety is None or code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
        raise typer.Exit(int(code))
    if safety.report is None:
        why = [f"{source}: {line}." for source, lines in safety.plan.unread.items() for line in lines]
        typer.echo(" ".join(["editsafety: nothing was judged; no item matched.", *why]), err=True)
        if code == pytest.ExitCode.INTERRUPTED:
            raise options.Interrupted
        raise typer.Exit(NOTHING_JUDGED)
    if not output.quiet:
        safety.show(sys.stdout)
    if code == pytest.ExitCode.INTERRUPTED:
        raise options.Interrupted
    raise typer.Exit(0 if report_only and safety.report.sound else safety.report.exit_code)


def pytest_words(given: Settings | Output) -> list[str]:
    """Options as words for pytest, which hands them on to its workers: all that differ from their defaults."""
    return [
        one.pytest if value is True else f"{one.pytest}={value}" for one, value in changed_options(given)
    ]  # fmt: skip


def arguments(chosen: Sequence[str], workers: str | None = None, select: str | None = None) -> list[str]:
    """What pytest is called with: our suites, our ini file, none of its terminal output.

    Raises UnknownNameError for a suite that there is not.
    """
    suites = shipped("suites")
    for name in chosen:
        if name not in (*SUITES, *MORE):
            raise UnknownNameError("suite", name, (*SUITES, *MORE))
    args = [str(suites / name) for name in dict.fromkeys(chosen)]
    args += ["-c", str(suites / "pytest.ini"), "--rootdir", str(suites), "-p", "no:terminal", "-p", "no:cacheprovider"]
    args += ["-n", workers] if workers else []
    args += ["-k", select] if select else []
    return args


def report(
    folder: Annotated[Path, typer.Argument(help="the folder of a run")],
    policy: Annotated[str | None, typer.Option(help="judge by another policy")] = None,
    format: Annotated[str, typer.Option("--format", "-f", help=", ".join(reporting.names()))] = "terminal",
    comment: Annotated[
        Path | None,
        typer.Option(help="also write it as one comment for a pull request", show_default="none"),
    ] = None,
) -> None:
    """Judge a stored run again, without a model, and show the report. Exits like `run`."""
    options.refuse_unwritable(comment)
    with reading_many():
        found = stored(folder, policy)
        if comment is not None:
            comments.write(found, comment, suites=folders.suites())
        place = ReportPlace(folders.suites(), folder)
        if format == "terminal":
            as_terminal.render(found, escaping.console(), place)
        else:
            typer.echo(reporting.load(format)(found, place), nl=False)
    if found.exit_code == STOPPED:
        raise options.WasInterrupted
    raise typer.Exit(found.exit_code)


@reading_many()
def stored(folder: Path, policy: str | None = None) -> RunReport:
    """The report of a run folder. Raises StoreError when there is no run in it."""
    about = folders.about(folder)
    if "settings" not in about or not (folder / folders.STORE).is_file():
        raise StoreError(
            f"{folder}: holds no run (no {folders.PLAN} and {folders.STORE}). Give a folder under reports/."
        )
    settings = Settings.stored(about["settings"], str(folder / folders.PLAN))
    store = Store(folder / folders.STORE)
    plan = keep_known(RunPlan.of(settings), store)
    facts = store.facts()
    planned = plan.wanted(facts.asked)
    if facts.asked.apart:  # no options lay these cases out: they are as their records say
        kept = {record.case: _case_of(record, facts.asked) for record in store.records()}
        others = {name: case for name, case in kept.items() if name in facts.asked.cases}
        planned = list({**{case.id: case for case in planned}, **others}.values())
    limits = Policy.of(replace(settings, policy=policy) if policy else settings)
    only = needed_of_many(limits, facts.columns, len(planned))
    records = store.finished(planned, only, begun=True, digests=plan.digests)
    _refuse_unmeasured(limits, records)
    if policy:
        facts = replace(facts, judged=frozenset())  # of another policy every limit counts
    # A run that was killed may have computed what it did not come to judge, and must not look whole.
    found = RunReport.of(plan, limits, records, facts, planned=planned, interrupted=facts.ended.interrupted)
    return with_command(found) if facts.asked.apart else found


def _case_of(record: CaseRecord, asked: Wanted) -> Case:
    probed = record.case in asked.probed
    return Case(record.model, record.editor, record.stream, record.requests, record.schedule, probed=probed)


def _refuse_unmeasured(limits: Policy, records: Mapping[str, CaseRecord]) -> None:
    """What no measure gives cannot be judged, but what is in the records can, whoever measured it."""
    known = tuple(map(abilities.measurement_of, abilities.names()))
    try:
        refuse_unmeasured(limits, known)
    except UnknownNameError:  # perhaps of a measure that is not installed here
        also = {name for record in records.values() for step in record.steps for name in step.found}
        refuse_unmeasured(limits, known, also)
