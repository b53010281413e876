"""What watching costs: the share of a case that goes into proving that the model is what it was."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from editsafety.edits.behaviour import Behaviour
from editsafety.edits.bindings import Bindings
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.surroundings import Surroundings
from editsafety.edits.threads import Threads
from tests.reliability.inside import MODEL, laboratory
from tests.reliability.trials import Result

WATCHED = ("rome", "c_rome", "memit", "alphaedit", "ft", "mend", "grace")
# What only proves: by behaviour and by what is around the model; and by reading it. They call each other nowhere, so
# their times add up.
AROUND = (
    (Behaviour, "of"),
    (Behaviour, "differences"),
    (Bindings, "renewed"),
    (Bindings, "put_back"),
    (Surroundings, "now"),
    (Surroundings, "put_back"),
    (Surroundings, "findings"),
    (Threads, "now"),
    (Threads, "left_running"),
)
READING = (
    (Seal, "of"),
    (Seal, "renewed_beside"),
    (Frame, "of"),
    (Frame, "left_behind"),
    (Frame, "restore"),
)


@dataclass
class Spent:
    """CPU seconds of what proves, so far: others may be at work on this machine."""

    seconds: float = 0.0
    calls: int = field(default=0)

    def clocked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted."""

        def run(*args: Any, **more: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **more)
            finally:
                self.seconds += time.process_time() - start
                self.calls += 1

        return run


@contextmanager
def clocked(spent: Spent, proving: Sequence[tuple[type, str]]) -> Iterator[None]:
    """Inside, what proves is timed. To be entered before a model is opened: it remembers what is whose."""
    own = [(kind, name, inspect.getattr_static(kind, name)) for kind, name in proving]
    try:
        for kind, name, member in own:
            of_class = isinstance(member, classmethod)
            timed = spent.clocked(member.__func__ if of_class else member)
            setattr(kind, name, classmethod(timed) if of_class else timed)
        yield
    finally:
        for kind, name, member in own:
            setattr(kind, name, member)


def seal(number: int) -> Result:
    """The cases of one editor, behind those of the others, whose v* it may take over."""
    editor, around, reading = WATCHED[number], Spent(), Spent()
    with clocked(around, AROUND), clocked(reading, READING):
        lab = laboratory(*WATCHED)
        cases = [case for case in lab.plan.cases if case.editor == editor]
        lab.tools.ready(*cases[0].block)  # prepared, and measured unedited, before anything is timed
        before = [case for case in lab.plan.cases if case.editor in WATCHED[:number]]
        for case in before:
            lab.record(case)
        lab.tools.bench(MODEL).unedited(cases[0].requests)
        around.seconds, reading.seconds, start = 0.0, 0.0, time.process_time()
        for case in cases:
            lab.record(case)
        whole = time.process_time() - start
    return {
        "editor": editor,
        "cases": len(cases),
        "seconds_per_case": whole / len(cases),
        "share": around.seconds / whole,
        "share_of_reading": reading.seconds / whole,
    }
