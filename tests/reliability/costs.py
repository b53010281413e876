"""What watching costs: the share of a case that goes into proving that the model is what it was."""

from __future__ import annotations

import cProfile
import pstats
import time

from tests.reliability.inside import MODEL, laboratory
from tests.reliability.trials import Result

WATCHED = ("rome", "c_rome", "memit", "alphaedit", "ft", "mend", "grace")
# File of editsafety/edits, and function: what only proves, by behaviour and by what is around the model. They call
# each other nowhere, so their times add up.
PROVING = {
    ("behaviour.py", "of"),
    ("behaviour.py", "differences"),
    ("bindings.py", "renewed"),
    ("bindings.py", "put_back"),
    ("surroundings.py", "now"),
    ("surroundings.py", "put_back"),
    ("surroundings.py", "findings"),
    ("threads.py", "now"),
    ("threads.py", "left_running"),
}


def seal(number: int) -> Result:
    """The cases of one editor under a profiler, which weighs Python more than torch: the share is an upper bound."""
    editor = WATCHED[number]
    lab = laboratory(*WATCHED)
    cases = [case for case in lab.plan.cases if case.editor == editor]
    lab.tools.ready(*cases[0].block)  # prepared, and measured unedited, before anything is timed
    lab.tools.bench(MODEL).unedited(cases[0].requests)
    profile = cProfile.Profile(time.process_time)  # others may be at work on this machine
    profile.enable()
    for case in cases:
        lab.record(case)
    profile.disable()
    stats = pstats.Stats(profile)
    whole = float(stats.total_tt)  # type: ignore[attr-defined]
    proving = sum(
        cumulative
        for (file, _, name), (_, _, _, cumulative, _) in stats.stats.items()  # type: ignore[attr-defined]
        if "/edits/" in file and (file.rpartition("/")[2], name) in PROVING
    )
    return {"editor": editor, "cases": len(cases), "seconds_per_case": whole / len(cases), "share": proving / whole}
