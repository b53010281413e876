"""Limits: how long a supervised lab may take for what it does. Learned from what it did before; no wall clock."""

from __future__ import annotations

from editsafety.command_line import is_command
from editsafety.lab.watch import Sign
from editsafety.names import parts

FLOOR = 60.0  # seconds that every case may take: no machine is so busy that a hang is not told from it by then
SLOWER = 20.0  # times an editor's slowest case so far: an optimisation may stop after one step or after its last
FIRST = 5000.0  # texts of the unedited model: an editor's first case may take as long as measuring so many of them
PROGRAM = 660.0  # seconds a request where the editor is a program: it is given 600, and is stopped by itself then
PREPARING = 1800.0  # seconds of preparing without a sign of progress

Kind = tuple[str, str, bool]  # model, editor, whether it runs a course: each has a pace of its own


class Limits:
    """The time limits of a run.

    `given` are seconds for a case (of a course: for a step), 0 for no limit at all, None where they are to be derived:
    20 times the editor's slowest case on this model, before the first one as long as measuring 5,000 texts, and
    never less than a minute, where the editor is a program eleven minutes a request. A step of a course counts for the
    requests that are edited in it.
    """

    def __init__(self, given: float | None) -> None:
        self._given = given
        self._slowest: dict[Kind, float] = {}

    def learn(self, sign: Sign, seconds: float) -> None:
        """Something came to its end in so many seconds; only cases are learned from."""
        if sign.doing == "running" and sign.key:
            kind = _kind(sign)
            self._slowest[kind] = max(self._slowest.get(kind, 0.0), seconds / sign.requests)

    def of(self, sign: Sign, per_text: float) -> float | None:
        """Seconds for what a sign says, None for no limit. `per_text` are those of a text when it was measured.

        Loading a model has no limit: how long a download takes is the network's business.
        """
        if self._given == 0 or sign.doing in ("waiting", "loading", "spoilt"):
            return None
        if sign.doing == "preparing":
            return PREPARING
        if self._given is not None:
            return self._given
        slowest = self._slowest.get(_kind(sign)) if sign.doing == "running" else None
        alone = FIRST * per_text if slowest is None else SLOWER * slowest
        floor = PROGRAM * sign.requests if is_command(parts(sign.editor)[1]) else FLOOR
        return max(floor, alone * sign.requests)


def _kind(sign: Sign) -> Kind:
    return sign.model, sign.editor, sign.requests > 1
