"""RunReport: what a run came to. One object, from which line, table, JSON, Markdown, JUnit and exit code are made.

No torch here: it is made of a plan, a policy and records alone, so reports can be rebuilt on any machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from editsafety.judging.block_checks import checks_of_block
from editsafety.judging.checks import WALKED, WRITES, CaseVerdict, Check, judge_case, judge_group
from editsafety.judging.controls import CONTROL, Control, controls_of
from editsafety.judging.group import WHOLE, Group, order
from editsafety.judging.parts import Gap, VerdictPart, of_blocks, of_run
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import NOTHING_JUDGED, STOPPED, Verdict
from editsafety.names import label, slug
from editsafety.runs.case import Block, Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import ModelFacts, RunFacts
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.stored_records import StoredRecords, reading_many

if TYPE_CHECKING:
    from editsafety.judging.baselines.comparison import Comparison

# 17 kB of report.json a case: up to here it is 35 MB, which editors and browsers still open, and larger than the sets
# of 1,000 and 2,000 requests on which editors are usually compared.
MOST_IN_FULL = 2000


@dataclass(frozen=True)
class RunReport:
    """Everything that is said about a run."""

    plan: RunPlan
    policy: Policy
    groups: tuple[Group, ...]  # the single edits, by editor and model
    controls: tuple[Control, ...]
    facts: RunFacts
    interrupted: bool = False
    courses: tuple[CaseVerdict, ...] = ()  # the cases of several edits
    missing_courses: tuple[str, ...] = ()  # ids of those without a record
    command: str = ""  # how it is run again, where that is not a suite of pytest
    commands: Mapping[str, str] = field(default_factory=dict)  # the same for single cases, by id; empty: there is none
    against: Comparison | None = None  # how it stands to a baseline, where one was given
    more: Mapping[str, Any] = field(default_factory=dict)  # what else the JSON document has, by section
    stored: StoredRecords | None = field(default=None, compare=False, repr=False)  # the whole records of lean ones
    unplanned: bool = False  # no plan laid it out, so that there are no controls that could have been run

    @classmethod
    def of(
        cls,
        plan: RunPlan,
        policy: Policy,
        records: Mapping[str, CaseRecord],
        facts: RunFacts,
        *,
        planned: Iterable[Case] | None = None,
        interrupted: bool = False,
    ) -> RunReport:
        """Judge the records (by case id) of the planned cases, of all single edits when `planned` is not given.

        Where the facts say which checks were asked for (a part of the suites was run), only those are judged, so that
        report and exit code of pytest agree. A control case in `planned` must have a result, too.
        """
        wanted = tuple(plan.cases if planned is None else planned)
        courses = [case for case in wanted if case.is_course and case.id not in facts.not_applicable]
        cases = [case for case in wanted if not case.control and not case.is_course]
        shared = {case.id for case in plan.controls}  # an editor that is named may be a control as well
        if facts.judged == {CONTROL} and not interrupted and all(case.id in shared for case in cases):
            cases = []  # they were wanted as a control's only; where a run was stopped, more would have been asked
        controls = {case.id for case in wanted if case.control}
        blocks: dict[Block, list[Case]] = {}
        for case in cases:
            blocks.setdefault(case.block, []).append(case)
        with reading_many():
            groups = tuple(_group(policy, block, records, facts, interrupted) for block in blocks.values())
        told = controls_of(plan, policy, records, controls, facts)
        walked = tuple(_judged(policy, records[case.id], facts) for case in courses if case.id in records)
        missing = tuple(case.id for case in courses if case.id not in records)
        kept = records if isinstance(records, StoredRecords) and records.is_lean else None
        return cls(plan, policy, groups, told, facts, interrupted, walked, missing, stored=kept)

    @classmethod
    def alone(cls, policy: Policy, group: Group, model: ModelFacts, facts: RunFacts) -> RunReport:
        """The report on one group that no plan laid out: a model that was handed over, the edits of a guard."""
        plan = RunPlan(Settings((model.source,), (group.editor,)), (), (), {})
        nowhere = {case.record.case: "" for case in group.cases}  # no suite has them
        return cls(
            plan, policy, (group,), (), replace(facts, models={model.model: model}), commands=nowhere, unplanned=True
        )

    @property
    def judged(self) -> int:
        """Number of judged cases."""
        return sum(len(group.cases) for group in self.groups)

    @property
    def is_large(self) -> bool:
        """Whether there are more cases than anybody reads: then reports show the worst, and a file beside them all."""
        return self.judged > MOST_IN_FULL

    def whole(self, case: CaseVerdict) -> CaseVerdict:
        """A judged case with all that was found about it: of a large run the store has what nothing is judged by.

        Raises StoreError where it is there no more.
        """
        if self.stored is None or case.record.is_course:
            return case
        return replace(case, record=self.stored.whole(case.record.case))

    @property
    def planned(self) -> int:
        """Number of planned cases."""
        return sum(len(group.cases) + len(group.missing) for group in self.groups)

    @property
    def blocks(self) -> tuple[tuple[str, str], ...]:
        """Model and editor of all that something was found about: by single edits, courses, or costs alone."""
        found = [(group.model, group.editor) for group in self.groups]
        found += [(course.record.model, course.record.editor) for course in self.courses]
        return tuple(dict.fromkeys([*found, *((one.model, one.editor) for one in self.facts.repeated)]))

    @property
    def only_costs(self) -> bool:
        """Whether the run was about what edits cost, and nothing else: `suites/speed` alone."""
        return bool(self.facts.repeated) and not (self.planned or self.courses or self.missing_courses or self.controls)

    @property
    def gaps(self) -> tuple[str, ...]:
        """Why there is no record of a course, for each that has none."""
        return tuple(said for *_, said in self._gaps())

    @cached_property
    def parts(self) -> tuple[VerdictPart, ...]:
        """What the verdict is made of: each editor on each model, then the run itself; none where nothing was judged.

        Where nothing was judged because something stood in the way that has a name, that is an ERROR and not nothing.
        """
        blocks, run = of_blocks(self.groups, self.courses, self._gaps()), of_run(self._troubles())
        judged = self.judged or self.courses or (self.controls and not self.planned)
        judged = judged or (self.against is not None and self.against.held)
        return (*blocks, run) if judged or Verdict.ERROR in {part.verdict for part in (*blocks, run)} else ()

    @property
    def verdict(self) -> Verdict | None:
        """The worst of all parts; None when nothing was judged."""
        return Verdict.worst(part.verdict for part in self.parts) if self.parts else None

    @property
    def uncontrolled(self) -> tuple[str, ...]:
        """The models without a control: nothing has shown that a collapse of theirs would be seen."""
        if self.unplanned:
            return ()
        judged = (*((g.model) for g in self.groups), *(course.record.model for course in self.courses))
        return tuple(dict.fromkeys(model for model in judged if model not in {c.model for c in self.controls}))

    def _troubles(self) -> Iterator[tuple[Verdict, str]]:
        """What is wrong with the run itself, whatever came of its editors."""
        yield from ((Verdict.ERROR, control.sentence) for control in self.controls if not control.behaved)
        if self.plan.settings.require_controls and self.uncontrolled:
            models = ", ".join(self.uncontrolled)
            yield Verdict.ERROR, f"no control was run on {models}, and controls are required (--require-controls)"
        if self.facts.unexplained:
            told = "; ".join(self.facts.unexplained)
            yield Verdict.ERROR, f"a test failed by itself, and by no check that it is there to make: {told}"
        if self.interrupted:
            yield Verdict.INCOMPLETE, "the run was interrupted"
        if self.against is not None:
            yield from (
                (Verdict.ERROR, f"cannot be held against the baseline: {said}") for said in self.against.refused
            )
            yield from (
                (Verdict.ERROR, f"cannot be held against the baseline: {said}") for said in self.against.incomparable
            )
            yield from ((Verdict.REGRESSED, f"{one.editor}: {one.sentence}") for one in self.against.regressed)

    def _gaps(self) -> Iterator[Gap]:
        """The courses without a record."""
        cases = {case.id: case for case in self.plan.courses}
        for name in self.missing_courses:
            case = cases.get(name)
            block = (slug(case.model), label(case.editor)) if case else ("", "")
            problem = self.facts.problems.get(block)
            verdict, said = (Verdict.ERROR, problem) if problem else (Verdict.INCOMPLETE, "no result")
            yield *block, verdict, f"{name}: {verdict.value}: {said}"

    @cached_property
    def worst_groups(self) -> list[Group]:
        """Groups by severity, then by their worst perplexity ratio, both descending."""
        return sorted(
            self.groups, key=lambda g: (-g.verdict.severity, -max(g.ratios(), default=-1.0), g.model, g.editor)
        )

    @cached_property
    def standing(self) -> list[tuple[str, str, Verdict]]:
        """Model, editor and verdict over cases and courses together, the worst first."""
        found: dict[tuple[str, str], list[Verdict]] = {}
        for group in self.worst_groups:
            found.setdefault((group.model, group.editor), []).append(group.verdict)
        for course in self.courses:
            found.setdefault((course.record.model, course.record.editor), []).append(course.verdict)
        worst = [(model, editor, Verdict.worst(verdicts)) for (model, editor), verdicts in found.items()]
        return sorted(worst, key=lambda one: -one[2].severity)

    @property
    def sound(self) -> bool:
        """Whether the job itself ran (something judged, nothing missing or in error, every control as expected)."""
        return self.verdict not in (None, Verdict.ERROR, Verdict.INCOMPLETE)

    @property
    def exit_code(self) -> int:
        """0 pass, 2 stopped, 10 to 14 as the verdict says, 14 where nothing was judged."""
        if self.interrupted and self.facts.ended.stopped:
            return STOPPED
        return NOTHING_JUDGED if self.verdict is None else self.verdict.exit_code

    @cached_property
    def worst(self) -> CaseVerdict | None:
        """The worst case of the run."""
        cases = [group.worst_first()[0] for group in self.groups if group.cases]
        return max(cases, key=lambda c: (c.verdict.severity, order(c.ratio)), default=None)

    def cause(self, case: CaseVerdict) -> str | None:
        """A sentence naming the likeliest cause of a collapse and what avoids it; None of anything else."""
        found = next((group.causes(case) for group in self.groups if case in group.cases), ())
        return found[0].text if found else None


def _group(
    policy: Policy, cases: Sequence[Case], records: Mapping[str, CaseRecord], facts: RunFacts, interrupted: bool
) -> Group:
    model, editor = slug(cases[0].model), label(cases[0].editor)
    judged, missing = [], []
    for name in (case.id for case in cases):
        if name in records:
            judged.append(_judged(policy, records[name], facts))
        else:
            missing.append(name)
    checks: dict[str, tuple[Check, ...]] = {}
    planned = Counter(case.stream for case in cases)
    for stream in planned:
        rows = [case.record for case in judged if case.record.stream == stream]
        checks[stream] = tuple(check for check in judge_group(policy, rows) if facts.asks_for(check.name))
    checks[WHOLE] = tuple(checks_of_block(model, editor, facts, complete=not missing))
    # Which checks a run asks for shows as its tests are run, the rates of an editor among the last.
    cut_short = interrupted and not all(facts.asks_for(name) for name in policy.group)
    return Group(model, editor, tuple(judged), checks, tuple(missing), planned, cut_short)


def _judged(policy: Policy, record: CaseRecord, facts: RunFacts) -> CaseVerdict:
    """A case judged by the checks that were asked for.

    What stopped it is never left out, nor that it is no edit, or of a model that was broken before.
    """
    case = judge_case(policy, record)
    head = "course " if record.is_course else ""
    stopped = record.failure is not None and not record.is_course
    if stopped or not facts.judged:
        return case

    def counts(check: Check) -> bool:
        if f"{head}{check.name}" in facts.judged or check.name == WALKED:
            return True
        return check.verdict.fails and (check.name == WRITES or check.name in policy.on_base)

    kept = tuple(check for check in case.checks if counts(check))
    return case if len(kept) == len(case.checks) else CaseVerdict(case.record, kept, case.limit)
