"""SafetySession: the state of one pytest session of ours, kept in its stash. torch comes in with the first case."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety.errors import StoreError, UsageError
from editsafety.judging.case_checks import Check, judge_case, judge_group
from editsafety.judging.course_checks import judge_course
from editsafety.judging.policy import Policy
from editsafety.judging.report import Control, RunReport
from editsafety.names import label, slug, tag
from editsafety.plugin.options import settings_of
from editsafety.progress import Progress
from editsafety.reporting import as_json, as_markdown, junit, terminal
from editsafety.runs import folders
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.plan import Case, RunPlan
from editsafety.runs.schedule import Course
from editsafety.runs.store import Store
from editsafety.tensor_files import write_atomically

if TYPE_CHECKING:
    import pytest

    from editsafety.editors import Editor
    from editsafety.edits.session import EditSession
    from editsafety.lab.lab import Lab
    from editsafety.model.handle import ModelHandle


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What a group item is about: a model, an editor, and a stream ("" for all)."""

    model: str
    editor: str
    stream: str = ""

    @property
    def id(self) -> str:
        """`pocket-neo-rome-hard`"""
        return "-".join(part for part in (slug(self.model), tag(self.editor), self.stream) if part)


class SafetySession:
    """Plan, policy, store and lab of a session; `report` is there once it ends."""

    def __init__(
        self, plan: RunPlan, folder: Path, *, worker: str | None, workers: int, quiet: bool, capture: Any = None
    ) -> None:
        self.plan = plan
        self.policy = Policy.read(plan.settings.policy)
        self.folder = folder
        self.worker = worker
        self.workers = workers
        self.quiet = quiet or worker is not None
        self.report: RunReport | None = None
        self._capture = capture
        self._start = time.monotonic()
        self._store: Store | None = None
        self._lab: Lab | None = None
        self._asked: set[str] = set()
        self._lost = False

    @classmethod
    def of(
        cls, config: pytest.Config, option: Callable[[pytest.Config, str], Any], worker: Mapping[str, Any] | None
    ) -> SafetySession:
        """From pytest's options. Raises UsageError or DataError before any model is loaded."""
        plan = RunPlan.of(settings_of(lambda name: option(config, name)))
        reports = Path(config.invocation_params.dir) / "reports"
        out = option(config, "out")
        folder = (
            Path(worker["editsafety_folder"]) if worker else folders.choose(plan, reports, Path(out) if out else None)
        )
        return cls(
            plan,
            folder,
            worker=worker["workerid"] if worker else None,
            workers=int(worker["editsafety_workers"]) if worker else 1,
            quiet=bool(option(config, "quiet")),
            capture=config.pluginmanager.getplugin("capturemanager"),
        )

    @property
    def store(self) -> Store:
        """The store of this run; the folder is made when it is first used."""
        if self._store is None:
            if self.worker is None:
                folders.begin(self.folder, self.plan)
            self._store = Store(self.folder / folders.STORE)
        return self._store

    @property
    def lab(self) -> Lab:
        """The lab of this process. Importing it brings torch in."""
        if self._lab is None:
            from editsafety.lab.lab import Lab

            progress = Progress(sys.__stderr__ or sys.stderr, "quiet" if self.quiet else "auto")
            self._lab = Lab(self.plan, self.store, progress, workers=self.workers)
        return self._lab

    def parameters(self, fixture: str, kinds: Collection[str] = ()) -> Sequence[Any]:
        """The values that a fixture is parametrised with, in plan order; of courses those of certain schedules."""
        if fixture == "case":
            return self.plan.cases
        if fixture == "course":
            return [course for course in self.plan.courses if not kinds or course.schedule.kind in kinds]
        if fixture == "group":
            return list(dict.fromkeys(GroupKey(c.model, c.editor, c.stream) for c in self.plan.cases))
        if fixture == "block":
            return [GroupKey(model, editor) for model, editor in self.plan.blocks]
        return list(dict.fromkeys(GroupKey(c.model, c.editor) for c in self.plan.controls))

    def lose_worker(self) -> None:
        """A worker died: what it was judging is lost, whoever computes its cases again. The run is incomplete."""
        self._lost = True

    def select(self, items: Iterable[tuple[Mapping[str, Any], Collection[str]]]) -> None:
        """Take parameters and fixtures of the selected items: their cases are wanted, in plan order, and no others.

        A block alone wants no case (what an edit costs is measured live); the check of the order does.

        Raises StoreError when nothing can be kept in the folder of this run.
        """
        wanted: set[str] = set()
        courses: dict[str, Course] = {}
        for one, fixtures in items:
            if isinstance(one.get("case"), Case):
                wanted.add(one["case"].id)
            if isinstance(one.get("course"), Course):
                courses[one["course"].id] = one["course"]
            for name, pool in (("group", self.plan.cases), ("block", self.plan.cases), ("control", self.plan.controls)):
                judges = name != "block" or "same_in_any_order" in fixtures
                if judges and isinstance(one.get(name), GroupKey):
                    wanted |= {case.id for case in _members(pool, one[name])}
        if not wanted and not courses:
            return
        if not (self.plan.settings.editors and self.plan.settings.models):
            raise UsageError("name at least one model and one editor.")
        self.store.put("wanted", sorted(wanted))
        self.store.put("courses", list(courses))
        self.store.put("interrupted", True)  # until the end: a run that is killed never gets there
        self.lab.wanted = [case for case in (*self.plan.cases, *self.plan.controls) if case.id in wanted]
        self.lab.wanted_courses = list(courses.values())

    def record(self, case: Case) -> CaseRecord:
        """A case's record, computed when missing. Progress is shown past pytest's capture."""
        with self._shown():
            return self.lab.record(case)

    def check(self, record: CaseRecord, name: str) -> Check:
        """One check of a case. Raises UsageError for a name that the policy does not have."""
        self._ask(name)
        verdict = judge_case(self.policy, record)
        if record.failure is None and name not in {check.name for check in verdict.checks}:
            known = ", ".join(check.name for check in verdict.checks)
            raise UsageError(f"policy {self.policy.name} has no case check {name!r}. Known: {known}.")
        return verdict.check(name)

    def group_check(self, group: GroupKey, name: str) -> Check | None:
        """One check over a group; None when no case has the data for it."""
        self._ask(name)
        records = [self.record(case) for case in _members(self.plan.cases, group)]
        if name not in self.policy.group:
            known = ", ".join(self.policy.group)
            raise UsageError(f"policy {self.policy.name} has no group check {name!r}. Known: {known}.")
        return next((check for check in judge_group(self.policy, records) if check.name == name), None)

    def same_in_any_order(self, block: GroupKey) -> tuple[bool, str]:
        """Whether results do not depend on the order of edits, and the sentence that says so."""
        self._ask("order")
        with self._shown():
            return self.lab.same_in_any_order(block.model, block.editor)

    def refuses(self, course: Course) -> str | None:
        """Why an editor cannot be walked along a course's schedule: its traits. None when it can."""
        from editsafety.lab.courses import refusal

        refused = refusal(course)
        if refused:
            self.store.put_new(f"not applicable:{course.id}", refused)
        return refused

    def walked(self, course: Course) -> CourseRecord:
        """A course's record, walked when missing. Progress is shown past pytest's capture."""
        with self._shown():
            return self.lab.course(course)

    def course_check(self, record: CourseRecord, name: str) -> Check | None:
        """One check of a course; None when nothing was measured that it could be judged by."""
        if name != "abilities" and name not in self.policy.course:
            known = ", ".join((*self.policy.course, "abilities"))
            raise UsageError(f"policy {self.policy.name} has no course check {name!r}. Known: {known}.")
        self._ask(f"course {name}")
        return judge_course(self.policy, record).check(name)

    def control(self, control: GroupKey) -> Control:
        """A control's outcome."""
        self._ask("control")
        cases = _members(self.plan.controls, control)
        records = {case.id: self.record(case) for case in cases}
        report = RunReport.of(self.plan, self.policy, records, {}, planned=())
        return next(c for c in report.controls if (c.model, c.editor) == (slug(control.model), label(control.editor)))

    def handle(self) -> ModelHandle:
        """The first model of the run, loaded."""
        with self._shown():
            return self.lab.bench(self.plan.settings.models[0]).handle

    def editor(self, chosen: Case | GroupKey | None) -> Editor:
        """The editor of a case or block, or the first one."""
        model, name = (chosen.model, chosen.editor) if chosen else self.plan.blocks[0]
        with self._shown():
            return self.lab.ready(model, name)

    def edited(self, case: Case) -> EditSession:
        """A session with the edit of a case, to be entered: the edit is applied on entry."""
        from editsafety.edits.session import EditSession
        from editsafety.lab import trial

        with self._shown():
            bench = self.lab.bench(case.model)
            edit, _, _ = trial.compute(bench.handle, self.lab.ready(case.model, case.editor), (case.request,))

        class Edited(EditSession):
            def __enter__(self) -> Edited:
                super().__enter__()
                self.apply(edit)
                return self

        return Edited(bench.handle)

    def properties(self, check: Check) -> list[tuple[str, object]]:
        """JUnit properties of a check."""
        return list(junit.properties(check))

    def write_report(self, *, interrupted: bool) -> None:
        """Judge what the store holds and write report.json and report.md; nothing when no case was wanted.

        Raises StoreError when they cannot be written.
        """
        interrupted = interrupted or self._lost
        if self._store is None and not (self.folder / folders.STORE).is_file():
            return
        wanted = set(self.store.get("wanted") or ())
        courses = [self.plan.course(name) for name in self.store.get("courses") or ()]
        if not wanted and not courses:
            return
        planned = [case for case in self.plan.cases if case.id in wanted]
        controls = [case for case in self.plan.controls if case.id in wanted]
        with self._shown():
            records = self.lab.finished([*planned, *controls])
            walked = self.lab.finished_courses(courses)
        self.store.put("interrupted", interrupted)
        facts = self.store.facts("")
        self.report = RunReport.of(
            self.plan,
            self.policy,
            records,
            facts,
            planned=[*planned, *controls],
            interrupted=interrupted,
            courses={one.id: walked.get(one.id) for one in courses if f"not applicable:{one.id}" not in facts},
        )
        try:
            self._write(self.report)
        except OSError as error:
            raise StoreError(f"{self.folder}: the report cannot be written ({error}). The results are kept.") from error
        whole = all(case.id in records for case in planned) and not self.report.missing_courses
        if not interrupted and whole:
            folders.finish(self.folder, self.plan)

    def _write(self, report: RunReport) -> None:
        suites = folders.suites()
        as_json.write(report, self.folder / "report.json", suites=suites)
        text = as_markdown.text(report, suites=suites)
        write_atomically(self.folder / "report.md", text.encode("utf-8", "backslashreplace"))
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            with open(summary, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(as_markdown.step_summary(report))

    def show(self, stream: Any) -> None:
        """Render the report to a terminal stream."""
        from rich.console import Console

        assert self.report is not None
        console = Console(file=stream, highlight=False, width=None if stream.isatty() else 110)
        seconds = time.monotonic() - self._start
        terminal.render(
            self.report, console, folder=folders.near(self.folder), seconds=seconds, suites=folders.suites()
        )

    def _ask(self, name: str) -> None:
        if name not in self._asked:
            self._asked.add(name)
            self.store.put_new(f"judged:{name}", True)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Let progress through pytest's capturing."""
        if self._capture is None or self.quiet:
            yield
            return
        with self._capture.global_and_fixture_disabled():
            yield


def _members(cases: Iterable[Case], group: GroupKey) -> list[Case]:
    return [c for c in cases if c.block == (group.model, group.editor) and group.stream in ("", c.stream)]
