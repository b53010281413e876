"""SafetySession: the state of one pytest session of ours, kept in its stash. torch comes in with the first case."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety import abilities, escaping
from editsafety.errors import EditSafetyError, SpoiltProcessError, StoreError, UsageError
from editsafety.judging.baselines.gate import Gate
from editsafety.judging.checks import ABILITIES, Check, group_check, judge_case
from editsafety.judging.controls import Control
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.needed import needed_of_many
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.names import label, slug
from editsafety.plugin.options import is_in_process, settings_of
from editsafety.plugin.selection import GroupKey, Selected, Share
from editsafety.progress import Progress
from editsafety.publishing import github, outlets
from editsafety.reporting import ReportPlace, as_terminal
from editsafety.runs import folders
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import (
    Ended,
    JudgedCheck,
    NotApplicable,
    OrderFacts,
    Unexplained,
    Unusable,
    Wanted,
)
from editsafety.runs.plan import RunPlan, keep_known, models_to_ask
from editsafety.runs.shards import WHOLE, Shard
from editsafety.runs.store import Store
from editsafety.supervision import Labs

if TYPE_CHECKING:
    import pytest
    from filelock import FileLock

    from editsafety.editors import Editor
    from editsafety.edits.session import EditSession
    from editsafety.model.handle import ModelHandle


class SafetySession:
    """Plan, policy, store and lab of a session; `report` is there once it ends."""

    def __init__(
        self,
        plan: RunPlan,
        folder: Path,
        *,
        worker: str | None,
        workers: int,
        quiet: bool,
        in_process: bool = False,
        gate: Gate | None = None,
        comment_to: Path | None = None,
        capture: Any = None,
        shard: Shard = WHOLE,
    ) -> None:
        self.plan = self._begun = plan
        self.share = Share(plan, shard)
        self.policy = Policy.of(plan.settings)
        refuse_unmeasured(self.policy, map(abilities.measurement_of, [*plan.all_probes, *abilities.names()]))
        self.folder = folder
        self.worker, self.workers = worker, workers
        self.quiet = quiet or worker is not None
        self._in_process, self._gate, self._comment_to = in_process, gate, comment_to
        self.report: RunReport | None = None
        self._capture, self._start = capture, time.monotonic()
        self._store: Store | None = None
        self._lock: FileLock | None = None
        self._labs: Labs | None = None
        self._wanted: dict[str, Case] = {}
        self._live: list[Case] = []
        self._asked: set[str] = set()
        self._lost = self._selected = False

    @classmethod
    def of(
        cls, config: pytest.Config, option: Callable[[pytest.Config, str], Any], worker: Mapping[str, Any] | None
    ) -> SafetySession:
        """From pytest's options. Raises UsageError or DataError before any model is loaded."""
        plan = RunPlan.of(settings_of(lambda name: option(config, name)))
        reports, out = Path(config.invocation_params.dir) / "reports", option(config, "out")
        chosen = Path(worker["editsafety_folder"]) if worker else Path(out) if out else None
        shard = Shard.parse(option(config, "shard"))
        folder = folders.choose(plan, reports, chosen, shard)
        given = option(config, "baseline")
        limits = option(config, "allow"), option(config, "fail-over")
        if given and not shard.is_whole:
            raise UsageError("a part of a run is not held against a baseline: give it to `editsafety merge`.")
        gate = None if worker else Gate.asked(Path(given) if given else None, *limits)
        session = cls(
            plan,
            folder,
            worker=worker["workerid"] if worker else None,
            workers=int(worker["editsafety_workers"]) if worker else 1,
            quiet=bool(option(config, "quiet")),
            in_process=is_in_process(config),
            gate=gate,
            comment_to=Path(written) if (written := option(config, "comment")) else None,
            capture=config.pluginmanager.getplugin("capturemanager"),
            shard=shard,
        )
        if not config.option.collectonly:
            session._keep_known()
        return session

    @property
    def store(self) -> Store:
        """The store of this run; the folder is made when it is first used."""
        if self._store is None:
            if self.worker is None:
                # Once: asked again, because the store cannot be used, it would find a run at work, which is itself.
                self._lock = self._lock or folders.begin(self.folder, self._begun, self.share.shard)
            self._store = Store(self.folder / folders.STORE)
            if self.worker is None:
                self._store.note(Unusable())  # whatever was refused before: this session finds out for itself
        return self._store

    @property
    def labs(self) -> Labs:
        """Who computes what this session asks for; what is wanted is known by then."""
        if self._labs is None:
            log = self.folder / ("output.log" if self.worker is None else f"output-{self.worker}.log")
            progress = Progress(sys.__stderr__ or sys.stderr, "quiet" if self.quiet else "auto")
            wanted = [self._chosen(case) for case in self.plan.every if case.id in self._wanted]
            self._labs = Labs(self.plan, self.store, progress, wanted, self._live, self.workers, log, self._in_process)
        return self._labs

    def expect_tests(self) -> None:
        """A worker has selected tests: its cases are in the store, and not known here; what they need is made once."""
        if not self._selected:
            self._selected = True
            with self._shown():
                self.labs.make_ready()

    def lose_worker(self) -> None:
        """A worker died: what it was judging is lost, whoever computes its cases again. The run is incomplete."""
        self._lost = True

    def select(self, tests: Iterable[Selected]) -> None:
        """Take the selected tests: their cases are wanted, in plan order, and no others.

        A block alone wants no case (what an edit costs is measured live); the check of the order does.

        Raises StoreError when nothing can be kept in the folder of this run.
        """
        probed, ordered = set[str](), set[GroupKey]()
        for test in tests:
            case = test.params.get("case")
            if isinstance(case, Case):
                self._wanted[case.id] = case
                probed |= {case.id} if test.probed and not case.is_course else set()
                self._live += [case] if test.edited else []
            for name, group in test.groups():
                ordered |= {group} if name == "block" else set()
                for member in self.share.members(name, group):
                    self._wanted.setdefault(member.id, member)
        if not self._wanted:
            return
        if not (self.plan.settings.editors and self.plan.settings.models):
            raise UsageError("name at least one model and one editor.")
        courses = {case.model for case in self._wanted.values() if case.is_course}
        for model in courses:
            refuse_unmeasured(self.policy, map(abilities.measurement_of, self.plan.probes(model)))
        for name in probed:
            self._wanted[name] = replace(self._wanted[name], probed=True)
        self.store.note(Wanted(tuple(sorted(self._wanted)), tuple(sorted(probed)), orders=len(ordered)))
        self.store.note(Ended(interrupted=True))
        # The suites name the checks of the default policy; what a policy has beside them is judged all the same.
        for name in self.policy.own_checks({case.is_course for case in self._wanted.values()}):
            self._ask(name)

    def record(self, case: Case) -> CaseRecord:
        """A case's record, computed when missing. Progress is shown past pytest's capture."""
        with self._shown():
            return self.labs.computing.record(self._chosen(case))

    def check(self, record: CaseRecord, name: str) -> Check | None:
        """One check of a case; None when nothing was measured that it could be judged by, or the policy leaves it out.

        Raises UsageError for a name that no policy has.
        """
        self._ask(f"course {name}" if record.is_course else name)
        verdict = judge_case(self.policy, record)
        limits = self.policy.course if record.is_course else {check.name: check for check in verdict.checks}
        if name != ABILITIES and name not in limits and (record.is_course or record.failure is None):
            self.policy.expect_left_out("course" if record.is_course else "case", name, limits)
            return None
        return verdict.check(name)

    def group_check(self, group: GroupKey, name: str) -> Check | str:
        """One check over a group; why there is none where no case has the data for it, or the policy leaves it out."""
        self._ask(name)
        records = self._records([self._chosen(case) for case in self.share.members("group", group)])
        if name not in self.policy.group:
            self.policy.expect_left_out("group", name, self.policy.group)
            return f"policy {self.policy.name} has no such limit"
        return group_check(self.policy, records, name)

    def _records(self, cases: Sequence[Case]) -> Sequence[CaseRecord]:
        """The records of a group; of a large one only what it is judged by is in memory."""
        only = needed_of_many(self.policy, (), len(cases))
        if only is None:
            return [self.record(case) for case in cases]
        for case in cases:
            self.record(case)
        return list(self.store.finished(cases, only).values())

    def same_in_any_order(self, block: GroupKey) -> OrderFacts:
        """Whether results depend on the order of edits."""
        self._ask("order")
        with self._shown():
            return self.labs.computing.same_in_any_order(block.model, block.editor)

    def refuses(self, case: Case) -> str | None:
        """Why an editor cannot go along a case's schedule: its traits. None when it can."""
        if not case.is_course:
            return None
        refused = self.labs.computing.refusal(case)
        if refused:
            self.store.note(NotApplicable(case.id, refused))
        return refused

    def control(self, control: GroupKey) -> Control:
        """A control's outcome; a tentative one that cannot be run (it is not prepared) has none."""
        self._ask("control")
        records = {}
        for case in self.share.members("control", control):
            try:
                records[case.id] = self.record(case)
            except (StoreError, SpoiltProcessError):
                raise  # of this process, not of the control
            except EditSafetyError:
                if not case.tentative:
                    raise
        report = RunReport.of(self.plan, self.policy, records, self.store.facts(), planned=())
        return next(c for c in report.controls if (c.model, c.editor) == (slug(control.model), label(control.editor)))

    def handle(self) -> ModelHandle:
        """The first model of the run, loaded."""
        with self._shown():
            return self.labs.here.tools.bench(self.plan.settings.models[0]).handle

    def editor(self, chosen: Case | GroupKey | None) -> Editor:
        """The editor of a case or block, or the first one."""
        model, name = (chosen.model, chosen.editor) if chosen else self.plan.blocks[0]
        with self._shown():
            return self.labs.here.tools.ready(model, name)

    def edited(self, case: Case) -> EditSession:
        """A session with the edit of a case, to be entered: the edit is applied on entry."""
        from editsafety.edits.session import EditedSession

        with self._shown():
            edit = self.labs.here.edit(case.block, case.requests).edit
            handle = self.labs.here.tools.bench(case.model).handle

        return EditedSession(handle, edit)

    def close(self) -> None:
        """End what runs for this session, and give its folder back."""
        if self._labs is not None:
            self._labs.close()
        if self._lock is not None:
            self._lock.release()

    def write_report(self, *, interrupted: bool, failed: Mapping[str, str], stopped: bool = False) -> None:
        """Judge what the store holds and write report.json and report.md; nothing when nothing was to be judged.

        `failed` are the tests of the suites that failed, and how; `stopped` says that the run was interrupted on
        purpose. Raises StoreError when the report cannot be written, and when the folder is of another model by now.
        """
        interrupted = interrupted or self._lost
        timed = self._store is not None and bool(self._store.facts().repeated)  # what edits cost, by suites/speed
        if not (self._wanted or self._selected or timed):
            return
        if self._store is not None and not (self.folder / folders.STORE).is_file():
            raise StoreError(f"{self.folder}: the folder of this run is gone, with all that was found. Run it again.")
        asked = self.store.fact(Wanted) or Wanted()
        if not (asked.cases or timed):
            return
        self.store.note(Ended(interrupted, stopped))
        planned, facts = self.plan.wanted(asked), self.store.facts()
        only = needed_of_many(self.policy, facts.columns, len(planned))
        records = self.store.finished(planned, only, digests=self.plan.digests)
        if facts.refused:
            raise StoreError(f"{self.folder}: {facts.refused}")
        facts = replace(facts, unexplained=())
        judged = RunReport.of(self.plan, self.policy, records, facts, planned=planned, interrupted=interrupted)
        explained = judged.verdict is None or judged.verdict.fails
        self.store.note(Unexplained(() if explained else tuple(f"{test}: {said}" for test, said in failed.items())))
        found = replace(judged, facts=self.store.facts())
        # Costs alone are kept, and judged by nothing but a baseline.
        self.report = self._gate.judged(found) if self._gate is not None else found if asked.cases else None
        try:
            if self.report is not None:
                outlets.write(self.report, self.folder, self._comment_to)
        except OSError as error:
            raise StoreError(f"{self.folder}: the report cannot be written ({error}). The results are kept.") from error
        whole = all(case.id in records or case.id in facts.not_applicable for case in planned)
        if not interrupted and whole:
            shutil.rmtree(self.folder / folders.EDITS, ignore_errors=True)
            folders.finish(self.folder, self._begun, self.share.shard)

    def show(self, stream: Any) -> None:
        """Render the report to a terminal stream."""
        assert self.report is not None
        console = escaping.console(stream, width=None if stream.isatty() else 110)
        place = ReportPlace(folders.suites(), folders.near(self.folder), time.monotonic() - self._start)
        as_terminal.render(self.report, console, place)
        github.annotate(self.report, stream)

    def _keep_known(self) -> None:
        """Lay out known facts only, where that is wanted: workers look up what was found out before they started."""
        if models_to_ask(self.plan.settings):
            with self._shown():
                self.plan = keep_known(self.plan, self.store) if self.worker else self.labs.known_only()
            self._labs, self.share = None, Share(self.plan, self.share.shard)

    def _ask(self, name: str) -> None:
        if name not in self._asked:
            self._asked.add(name)
            self.store.note(JudgedCheck(name))

    def _chosen(self, case: Case) -> Case:
        """The case as it is wanted in this session: with its abilities, or without."""
        return self._wanted.get(case.id, case)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Let progress through pytest's capturing; what an editor prints here comes out as plain text."""
        if self._capture is None or self.quiet:
            yield
            return
        with self._capture.global_and_fixture_disabled(), escaping.clean_streams():
            yield
