"""`editsafety run`: the suites as one command with one verdict; `editsafety report`: the same from a store."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from editsafety.cli import options
from editsafety.errors import StoreError, UnknownNameError
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import NOTHING_JUDGED
from editsafety.names import label, slug
from editsafety.progress import Progress, Task
from editsafety.reporting import as_json, as_markdown, terminal
from editsafety.runs import folders
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.plan import RunPlan, Settings
from editsafety.runs.store import Store
from editsafety.shipped import shipped

SUITES = ("controls", "collapse", "efficacy", "integrity")
MORE = ("sequential", "batch", "abilities")  # courses of edits: minutes per editor, so only when asked for


class Listener:
    """A pytest plugin that takes the finished safety session, and what went wrong before any test ran.

    With xdist workers, whose own progress nobody sees, it also shows how many cases are done.
    """

    def __init__(self, progress: Progress) -> None:
        self.safety: Any = None
        self.trouble: list[str] = []
        self._progress = progress
        self._shown = ExitStack()
        self._task: Task | None = None
        self._followed: Any = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any) -> None:
        """There are workers, and they know their cases."""
        from editsafety.plugin import STASH

        self._followed = node.config.stash.get(STASH, None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A worker has done a check, so some more cases may be in the store."""
        if self._followed is None or report.when != "teardown":
            return
        store = self._followed.store
        if self._task is None:
            total = len(store.get("wanted") or ())
            self._task = self._shown.enter_context(self._progress.task("cases", total))
        while self._task.done < min(store.count(), self._task.total):
            self._task.step()

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
        from editsafety.plugin import STASH

        self._shown.close()
        self.safety = session.config.stash.get(STASH, None)


def run(
    model: options.Models,
    editor: options.Editors,
    hard: Annotated[
        str, typer.Option(help="requests that may collapse a model: data set, LOADER:FILE, FILE.jsonl")
    ] = "",
    normal: Annotated[str, typer.Option(help="ordinary requests, given likewise")] = "",
    texts: Annotated[str, typer.Option(help="texts for perplexity, given likewise")] = "",
    text_limit: Annotated[int | None, typer.Option(help="how many texts [default: 50]")] = None,
    limit: Annotated[int | None, typer.Option(help="how many requests of each stream [default: all]")] = None,
    hparams: Annotated[list[str] | None, typer.Option(help="FILE, or editor=FILE; repeatable")] = None,
    policy: Annotated[str, typer.Option(help="default, or a .yaml file")] = "default",
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    batch_size: Annotated[int | None, typer.Option(help="texts per forward pass [default: 64]")] = None,
    controls: Annotated[
        int | None, typer.Option(help="how many hard cases the control editors get [default: 3]")
    ] = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="which suites; repeatable [default: those of single edits]")
    ] = None,
    edits: Annotated[int | None, typer.Option(help="of courses: how many requests at most [default: all]")] = None,
    every: Annotated[int | None, typer.Option(help="of courses: measure after so many [default: 10]")] = None,
    size: Annotated[list[int] | None, typer.Option(help="of courses: requests of a batch [default: 1, 10, 50]")] = None,
    singles: Annotated[int | None, typer.Option(help="of abilities: single edits a stream [default: 5]")] = None,
    probes: Annotated[list[str] | None, typer.Option(help="abilities: name, READER:FILE or none; repeatable")] = None,
    probe_limit: Annotated[int | None, typer.Option(help="items of each ability [default: 100]")] = None,
    go_on: Annotated[bool, typer.Option("--go-on", help="of courses: do not stop where the model breaks")] = False,
    workers: Annotated[str | None, typer.Option("-n", help="pytest-xdist workers, or auto")] = None,
    select: Annotated[str | None, typer.Option("-k", help="only cases whose id matches, as in pytest")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of this run [default: reports/<time>-<model>]")] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="exit 0 when the job ran and the controls behaved")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Crash-test editors on models and write a safety report.

    Exit codes: 0 pass; 10 COLLAPSE; 11 INEFFECTIVE, DAMAGED or NO-OP; 13 ERROR or INCOMPLETE; 14 nothing judged;
    2 interrupted; 4 the command cannot be meant. An interrupted run goes on when the same command is given again.
    """
    given: dict[str, Any] = {
        "model": model, "editor": editor, "hparams": hparams, "hard": hard, "normal": normal, "texts": texts,
        "text-limit": text_limit, "limit": limit, "policy": policy, "device": device, "dtype": dtype,
        "revision": revision, "offline": offline, "trust-remote-code": trust_remote_code, "seed": seed,
        "batch-size": batch_size, "controls": controls, "out": out, "prepare": True, "quiet": quiet,
        "edits": edits, "every": every, "size": size, "singles": singles, "probes": probes,
        "probe-limit": probe_limit, "go-on": go_on,
    }  # fmt: skip
    listener = Listener(Progress(sys.stderr, "quiet" if quiet else "auto"))
    code = pytest.main(arguments(given, workers, select, suite or SUITES), plugins=[listener])
    safety = listener.safety
    for text in listener.trouble:
        typer.echo(text, err=True)
    if safety is None or code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
        raise typer.Exit(int(code))
    if safety.report is None:
        typer.echo("editsafety: nothing was judged; no item matched.", err=True)
        if code == pytest.ExitCode.INTERRUPTED:
            raise options.Interrupted
        raise typer.Exit(NOTHING_JUDGED)
    if not quiet:
        safety.show(sys.stdout)
    if code == pytest.ExitCode.INTERRUPTED:
        raise options.Interrupted
    raise typer.Exit(0 if report_only and safety.report.sound else safety.report.exit_code)


def arguments(
    given: dict[str, Any], workers: str | None = None, select: str | None = None, chosen: Sequence[str] = SUITES
) -> list[str]:
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
    for name, value in given.items():
        if value is True:
            args.append(f"--editsafety-{name}")
        elif isinstance(value, list | tuple):
            args += [f"--editsafety-{name}={one}" for one in value]
        elif value is not None and value is not False and value != "":  # 0 is a value, and refused where it has to be
            args.append(f"--editsafety-{name}={value}")
    return args


def report(
    folder: Annotated[Path, typer.Argument(help="the folder of a run")],
    policy: Annotated[str | None, typer.Option(help="judge by another policy")] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="terminal, json or markdown")] = "terminal",
) -> None:
    """Judge a stored run again, without a model, and show the report. Exits like `run`."""
    from rich.console import Console

    found = stored(folder, policy)
    if format == "json":
        body = as_json.document(found, suites=folders.suites())
        typer.echo(json.dumps(body, indent=1, allow_nan=False, ensure_ascii=False))
    elif format == "markdown":
        typer.echo(as_markdown.text(found, suites=folders.suites()))
    elif format == "terminal":
        terminal.render(found, Console(highlight=False), folder=folder, suites=folders.suites())
    else:
        raise UnknownNameError("format", format, ("terminal", "json", "markdown"))
    raise typer.Exit(found.exit_code)


def stored(folder: Path, policy: str | None = None) -> RunReport:
    """The report of a run folder. Raises StoreError when there is no run in it."""
    about = folders.about(folder)
    if "settings" not in about or not (folder / folders.STORE).is_file():
        raise StoreError(
            f"{folder}: holds no run (no {folders.PLAN} and {folders.STORE}). Give a folder under reports/."
        )
    values: dict[str, Any] = about["settings"]
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    settings = Settings(**given)
    plan = RunPlan.of(settings)
    store = Store(folder / folders.STORE)
    facts = store.facts("")
    wanted = set(facts.get("wanted") or ())
    planned = [case for case in (*plan.cases, *plan.controls) if case.id in wanted]
    records = {}
    for case in planned:
        shared = facts.get(f"key:{slug(case.model)}:{label(case.editor)}")
        record = store.record(case.key(shared)) if shared else None
        if record is not None:
            records[case.id] = record
    read = Policy.read(policy or settings.policy)
    courses = [name for name in facts.get("courses") or () if f"not applicable:{name}" not in facts]
    walked = {name: _course(store, plan, name, facts) for name in courses}
    # A run that was killed may have computed what it did not come to judge, and must not look whole.
    interrupted = bool(facts.get("interrupted", True))
    return RunReport.of(plan, read, records, facts, planned=planned, interrupted=interrupted, courses=walked)


def _course(store: Store, plan: RunPlan, name: str, facts: dict[str, Any]) -> CourseRecord | None:
    """The record of a planned course as far as it was walked."""
    course = plan.course(name)
    shared = facts.get(f"course key:{name}")
    return store.course(course.key(shared)) if shared else None
