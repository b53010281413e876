"""Verdict: how a case, an editor or a run came out, and the exit code that says so. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from operator import attrgetter


class Verdict(Enum):
    """In order of severity, mildest first. The worst one wins.

    ERROR is above COLLAPSE on purpose: where the machinery failed, nothing else that was said can be relied on.
    """

    PASS = "PASS"
    WARN = "WARN"
    INEFFECTIVE = "INEFFECTIVE"
    NO_OP = "NO-OP"
    DAMAGED = "DAMAGED"
    COLLAPSE = "COLLAPSE"
    REGRESSED = "REGRESSED"
    INCOMPLETE = "INCOMPLETE"
    ERROR = "ERROR"

    # 0 for PASS, higher is worse. It is asked so often that looking it up would take a tenth of a large report.
    severity: int

    def __init__(self, _: str) -> None:
        self.severity = len(type(self).__members__)

    @property
    def fails(self) -> bool:
        """Whether a gate stops here (past WARN everything does)."""
        return self.severity > Verdict.WARN.severity

    @property
    def meaning(self) -> str:
        """What it says about an editor, in words."""
        return _MEANINGS[self]

    @property
    def advice(self) -> str:
        """What to do about it; empty where there is nothing to do."""
        return _ADVICE.get(self, "")

    @property
    def exit_code(self) -> int:
        """What `editsafety run` exits with (pytest keeps 0 to 6; 12 is a run that is worse than its baseline)."""
        return _EXIT_CODES[self]

    @classmethod
    def worst(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """The most severe one. Raises ValueError for none at all: nothing judged is not a pass."""
        return max(verdicts, key=attrgetter("severity"))


_EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.WARN: 0,
    Verdict.NO_OP: 11,
    Verdict.INEFFECTIVE: 11,
    Verdict.DAMAGED: 11,
    Verdict.COLLAPSE: 10,
    Verdict.REGRESSED: 12,
    Verdict.INCOMPLETE: 13,
    Verdict.ERROR: 13,
}
_MEANINGS = {
    Verdict.PASS: "every check passes",
    Verdict.WARN: "nothing fails, something deserves a look",
    Verdict.NO_OP: "an edit changes nothing",
    Verdict.INEFFECTIVE: "the edits do not take",
    Verdict.DAMAGED: "the edits change answers they should leave alone",
    Verdict.COLLAPSE: "an edited model stops working",
    Verdict.REGRESSED: "worse than the baseline that was accepted",
    Verdict.INCOMPLETE: "planned cases have no result",
    Verdict.ERROR: "the run itself cannot be relied on",
}
_ADVICE = {
    Verdict.WARN: "compare the figures with an earlier run before shipping",
    Verdict.NO_OP: "check that the editor gets the request, and its layers and learning rate",
    Verdict.INEFFECTIVE: "raise the number of steps or the learning rate, or edit other layers",
    Verdict.DAMAGED: "lower the step size, or use an editor that constrains neighbours",
    Verdict.COLLAPSE: "do not ship these edits; replay the worst case, and screen requests like it",
    Verdict.REGRESSED: "look at the cases that got worse; mend the editor, or accept this run as the new baseline",
    Verdict.INCOMPLETE: "run the same command again: finished cases are not computed again",
    Verdict.ERROR: "fix the first problem; nothing else in this report is reliable until then",
}
STOPPED = 2  # exit code of a run that was interrupted on purpose, as pytest's
NOTHING_JUDGED = 14
