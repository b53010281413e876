"""Watch: what a lab says about itself while it works, for whoever has to know what hangs or died. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from editsafety.runs.case import Case

Doing = Literal["waiting", "loading", "making", "preparing", "running", "spoilt"]


@dataclass(frozen=True, slots=True)
class Sign:
    """What the lab does from now on; "spoilt" says that its process had better be replaced before the next case."""

    doing: Doing = "waiting"
    model: str = ""
    editor: str = ""
    case: str = ""  # id of the case that is run
    key: str = ""  # what its record is found by; empty where an edit is computed for no record of its own
    requests: int = 1  # that are edited before the next sign, at most

    @classmethod
    def running(cls, case: Case, key: str = "") -> Sign:
        """A case is being run, a course from one measured step to the next."""
        most = max(*case.schedule.sizes, case.schedule.every) if case.is_course else 1
        return cls("running", *case.block, case.id, key, min(most, len(case.requests)))


Watch = Callable[[Sign], None]


def unwatched(sign: Sign) -> None:
    """Nobody wants to know."""
