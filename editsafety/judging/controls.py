"""Controls: editors of which it is known what they come to, and what that says of a run.

Where ROME collapses nothing on the hard cases, or an edit of nothing is called anything but that, no other verdict of
the run can be trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.names import label, slug
from editsafety.numbers import counting, span
from editsafety.runs.case import Block
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import RunFacts
from editsafety.runs.plan import RunPlan

CONTROL = "control"  # what is asked of a control, among the checks that were asked for


@dataclass(frozen=True)
class Control:
    """A control editor on the hard cases: what it must come to, and whether it did."""

    model: str
    editor: str
    expected: Verdict
    found: tuple[Verdict, ...]
    sentence: str
    # Whether nobody knows that it comes to that on this model: it is evidence then, and no check.
    tentative: bool = False

    @property
    def behaved(self) -> bool:
        """Whether nothing is wrong: the control shows what it is for, or is tentative and did not fail while it ran."""
        broken = {Verdict.ERROR, Verdict.INCOMPLETE} & set(self.found)
        return self.shows or (self.tentative and not broken)

    @property
    def shows(self) -> bool:
        """Whether the control shows what it is for.

        At least one hard case must collapse, or nothing here could (a hard set made for another model need not collapse
        this one in every case); a stable control must stay in all of them, though it may warn.
        """
        allowed = {
            Verdict.COLLAPSE: {Verdict.PASS, Verdict.WARN, Verdict.COLLAPSE},
            Verdict.PASS: {Verdict.PASS, Verdict.WARN},
        }.get(self.expected, {self.expected})
        shows = self.expected in self.found or self.expected is Verdict.PASS
        return bool(self.found) and shows and set(self.found) <= allowed

    @property
    def ran(self) -> bool:
        """Whether any of its cases has a result."""
        return any(verdict is not Verdict.INCOMPLETE for verdict in self.found)


def controls_of(
    plan: RunPlan, policy: Policy, records: Mapping[str, CaseRecord], wanted: Collection[str], facts: RunFacts
) -> tuple[Control, ...]:
    """What came of the controls of a plan, in its order; `wanted` are the ids of the cases that must have a result.

    A control that is no part of the session is left out.
    """
    return tuple(_controls(plan, policy, records, wanted, facts))


def _controls(
    plan: RunPlan, policy: Policy, records: Mapping[str, CaseRecord], wanted: Collection[str], facts: RunFacts
) -> Iterator[Control]:
    for model, editor, expected in dict.fromkeys((c.model, c.editor, c.control) for c in plan.controls):
        cases = [c for c in plan.controls if (c.model, c.editor) == (model, editor)]
        found = [judge_case(policy, records[c.id]) for c in cases if c.id in records]
        missing = sum(c.id in wanted and c.id not in records for c in cases)
        verdicts = (*(case.verdict for case in found), *[Verdict.INCOMPLETE] * missing)
        control = Control(slug(model), label(editor), Verdict(expected), verdicts, "", cases[0].tentative)
        why = _reason(plan, (model, editor), facts) if facts.asks_for(CONTROL) else ""
        if why and not found and (missing or control.tentative):
            shows = "it shows nothing" if control.tentative else "no other verdict can be trusted"
            sentence = f"{control.editor} on {control.model} was not run, so {shows}: {why}"
            yield replace(control, sentence=sentence, found=() if control.tentative else verdicts)
        elif verdicts:
            ratios = [case.ratio for case in found if case.ratio is not None]
            yield replace(control, sentence=_told(control, cases[0].stream, ratios))


def _reason(plan: RunPlan, block: Block, facts: RunFacts) -> str:
    """What stood in a control's way; where that was said of another editor of the model before, that it is the same."""
    model, editor = slug(block[0]), label(block[1])
    problem = facts.problems.get((model, editor), "")
    others = [*map(label, plan.settings.editors), *(label(c.editor) for c in plan.controls if c.model == block[0])]
    before = others[: others.index(editor)] if editor in others else others
    same = next((one for one in before if problem and facts.problems.get((model, one)) == problem), None)
    return problem if same is None else f"the same stands in its way as in that of {same}"


def _told(control: Control, stream: str, ratios: list[float]) -> str:
    """What a control came to, in words."""
    said = ", ".join(f"{control.found.count(v)} {v.value}" for v in Verdict if v in control.found)
    told = f" ({span(ratios)})" if ratios else ""
    on = counting(len(control.found), f"{stream} ")
    return f"{control.editor} on {on} of {control.model}: {said}{told}, {_outcome(control)}"


def _outcome(control: Control) -> str:
    """What a control's verdicts say, in words."""
    if not control.behaved:
        return f"but {control.expected.value} was expected, so no other verdict can be trusted"
    if not control.tentative:
        return "as expected"
    if control.shows:
        return "as on the models where that is known"
    proven = "; a collapse was not provoked, so nothing shows that one would be seen"
    known = f"where {control.expected.value} is what is known of other models"
    return f"{known}{proven if control.expected is Verdict.COLLAPSE else ''}"
