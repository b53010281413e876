"""Parts: what a run's verdict is made of. Each editor on each model is one, what concerns the run itself another.

A report has no other source of its verdict, so whoever tells all parts one by one (pytest, as tests) tells the verdict.
No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from editsafety.judging.checks import CaseVerdict
from editsafety.judging.group import Group
from editsafety.judging.verdict import Verdict
from editsafety.names import tag

Gap = tuple[str, str, Verdict, str]  # model and editor of a course without a record, what it comes to, and why
RUN = "run"  # the name of the part that concerns no editor


@dataclass(frozen=True, slots=True)
class VerdictPart:
    """One part of a verdict."""

    name: str  # `pocket-neo-rome`, or `run`
    verdict: Verdict
    sentences: tuple[str, ...] = ()  # why it does not pass, the most severe first

    @property
    def said(self) -> str:
        """The verdict and why, a line each."""
        return "\n".join((f"{self.verdict.value} {self.name}: {self.verdict.meaning}", *self.sentences))


def of_blocks(groups: Iterable[Group], courses: Iterable[CaseVerdict], gaps: Iterable[Gap]) -> list[VerdictPart]:
    """One part for each editor on each model: its single edits, its courses, and the courses that are missing."""
    found: dict[tuple[str, str], list[tuple[Verdict, Sequence[str]]]] = {}
    for group in groups:
        found.setdefault((group.model, group.editor), []).append((group.verdict, group.sentences))
    for course in courses:
        found.setdefault((course.record.model, course.record.editor), []).append((course.verdict, course.sentences))
    for model, editor, verdict, said in gaps:
        found.setdefault((model, editor), []).append((verdict, (said,)))
    return [_worst(f"{model}-{tag(editor)}", told) for (model, editor), told in found.items()]


def of_run(troubles: Iterable[tuple[Verdict, str]]) -> VerdictPart:
    """What concerns the run itself: it passes where nothing is wrong with it."""
    return _worst(RUN, [(Verdict.PASS, ()), *((verdict, (f"{verdict.value}: {said}",)) for verdict, said in troubles)])


def _worst(name: str, told: Sequence[tuple[Verdict, Sequence[str]]]) -> VerdictPart:
    ordered = sorted(told, key=lambda one: -one[0].severity)
    return VerdictPart(name, ordered[0][0], tuple(sentence for _, sentences in ordered for sentence in sentences))
