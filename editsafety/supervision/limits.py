"""Limits: how long a supervised lab may take for what it does. Learned from what it did before; no wall clock."""

from __future__ import annotations

from editsafety.lab.watch import Sign

FLOOR = 60.0  # seconds that every case may take: no machine is so busy that a hang is not told from it by then
SLOWER = 20.0  # times an editor's slowest case so far: an optimisation may stop after one step or after its last
FIRST = 300.0  # times the measuring of the unedited model: what an editor's first case may take
PREPARING = 1800.0  # seconds of preparing without a sign of progress

Kind = tuple[str, str, bool]  # model, editor, whether it runs a course: each has a pace of its own


class Limits:
    """The time limits of a run.

    `given` are seconds for a case (of a course: for a step), 0 for no limit at all, None where they are to be derived:
    20 times the editor's slowest case on this model, before the first one 300 times what measuring the unedited model
    took, and never less than a minute. A step of a course counts for the requests that are edited in it.
    """

    def __init__(self, given: float | None) -> None:
        self._given = given
        self._slowest: dict[Kind, float] = {}

    def learn(self, sign: Sign, seconds: float) -> None:
        """Something came to its end in so many seconds; only cases are learned from."""
        if sign.doing == "running" and sign.key:
            kind = _kind(sign)
            self._slowest[kind] = max(self._slowest.get(kind, 0.0), seconds / sign.requests)

    def of(self, sign: Sign, unedited: float) -> float | None:
        """Seconds for what a sign says, None for no limit. `unedited` are those that measuring the unedited model took.

        Loading a model has no limit: how long a download takes is the network's business.
        """
        if self._given == 0 or sign.doing in ("waiting", "loading"):
            return None
        if sign.doing == "preparing":
            return PREPARING
        if self._given is not None:
            return self._given
        slowest = self._slowest.get(_kind(sign)) if sign.doing == "running" else None
        alone = FIRST * unedited if slowest is None else SLOWER * slowest
        return max(FLOOR, alone * sign.requests)


def _kind(sign: Sign) -> Kind:
    return sign.model, sign.editor, sign.requests > 1
