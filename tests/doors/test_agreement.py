"""Whatever is asked of it, a run says the same through both doors: looked for in random runs of faulty editors.

`pytest tests/doors --hypothesis-profile=thorough` tries ten times as many, and two workers among them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from editsafety.cli.run import SUITES
from tests.doors.both import Doors, Given, Said, agree
from tests.doors.editors import BREAKS, ENDS, NOTHING, WRONG, Explodes, Nudge, Skips, WritesWhenMade

THOROUGH = settings.default.max_examples > 100
EXAMPLES = settings.default.max_examples // 100
EVERY = (Nudge, *NOTHING, *ENDS, *WRONG, *BREAKS)
SELECTED = ("", "hard", "Nudge or Skips", "perplexity", "takes", "order", "comes_back", "normal and finite", "nowhere")

given_runs = st.builds(
    Given,
    editors=st.lists(st.sampled_from(EVERY), min_size=1, max_size=2, unique=True).map(tuple),
    suites=st.one_of(st.just(SUITES), st.sampled_from(SUITES).map(lambda suite: (suite,))),
    select=st.sampled_from(SELECTED),
    workers=st.sampled_from([0, 0, 0, 2] if THOROUGH else [0]),
    options=st.sampled_from([("controls=0",), ("controls=1",), ("controls=0", "require-controls"), ("limit=1",)]),
)


@pytest.mark.thorough
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(run=given_runs)
@example(run=Given((WritesWhenMade,), ("collapse",), select="hard and stays"))
@example(run=Given((Skips, Nudge), SUITES, options=("controls=1", "require-controls")))
@example(run=Given((Explodes,), ("controls",)))
def test_both_doors_and_all_that_they_say_agree(doors: Doors, run: Given) -> None:
    with tempfile.TemporaryDirectory(dir=doors.place) as folder:
        found = doors.within(Path(folder)).both(run)
        agree(*found)
        assert doors.typed("report", str(found[0].folder)) == found[0].exit or found[0].report is None
        for said in found:
            expect(run, said)


def expect(run: Given, said: Said) -> None:
    """What can be told beforehand: a faulty editor of which a case was judged never passes, whatever was asked."""
    for group in (said.report or {"groups": ()})["groups"]:
        kind = next(editor for editor in run.editors if editor.__name__ == group["editor"])
        if group["cases"] and kind in NOTHING:
            assert group["verdict"] == "NO-OP"
        if group["cases"] and kind in ENDS:
            assert group["verdict"] == "ERROR"
        if kind in WRONG:
            assert group["verdict"] == "ERROR"
    if said.report is not None and "require-controls" in run.options and not said.report["controls"]:
        assert said.exit != 0
