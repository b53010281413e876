"""What an editor does wrong is said by both doors, and is no end of anything but of its own case."""

from __future__ import annotations

import pytest

from tests.doors.both import Doors, Given, Said, agree
from tests.doors.editors import BREAKS, ENDS, NOTHING, WRONG, Nudge

ONE = ("collapse", "integrity")
CHEAP = ("controls=0",)


def verdicts(said: Said) -> dict[str, str]:
    """By editor."""
    assert said.report is not None
    return {group["editor"]: group["verdict"] for group in said.report["groups"]}


def cases(said: Said, editor: type) -> dict[str, str]:
    """Verdict of each case of an editor."""
    assert said.report is not None
    group = next(group for group in said.report["groups"] if group["editor"] == editor.__name__)
    return {case["case"]: case["verdict"] for case in group["cases"]}


def test_a_harmless_editor_passes_through_both_doors(doors: Doors) -> None:
    found = doors.both(Given((Nudge,), ONE, options=CHEAP))
    agree(*found)
    assert [said.verdict for said in found] == ["PASS", "PASS"]
    assert found[1].red == ()
    assert {"tiny-model-Nudge", "run"} <= {*found[1].green}


@pytest.mark.parametrize(
    "suites",
    [
        pytest.param(("collapse",), marks=pytest.mark.thorough),
        pytest.param(("integrity",), marks=pytest.mark.thorough),
        ("efficacy",),
        ("collapse", "integrity"),
    ],
    ids=str,
)
def test_what_is_no_edit_is_a_no_op_in_every_suite(doors: Doors, suites: tuple[str, ...]) -> None:
    found = doors.both(Given(NOTHING, suites, options=CHEAP))
    agree(*found)
    for said in found:
        assert set(verdicts(said).values()) == {"NO-OP"}
        assert {verdict for editor in NOTHING for verdict in cases(said, editor).values()} == {"NO-OP"}
    text = found[0].printed
    assert "PASS in all" not in text
    assert "fail by themselves" not in text or "(0 of" not in text
    assert "changes nothing but the precision of transformer.h.1.mlp.c_proj.weight" in text


def test_an_editor_that_ends_the_program_or_the_test_has_an_error_in_each_case_and_the_others_go_on(
    doors: Doors,
) -> None:
    found = doors.both(Given((*ENDS, Nudge), ("collapse",), options=CHEAP))
    agree(*found)
    for said in found:
        assert verdicts(said) == {**{editor.__name__: "ERROR" for editor in ENDS}, "Nudge": "PASS"}
        for editor in ENDS:
            assert list(cases(said, editor).values()) == ["ERROR"] * 3
    assert "Skips raised Skipped: nothing to do here" in found[0].printed
    assert "what it says is not known: its __str__ raised ValueError" in found[0].printed


def test_after_an_editor_that_ended_the_next_one_has_the_figures_of_a_run_of_its_own(doors: Doors) -> None:
    alone = doors.run(Given((Nudge,), ("collapse",), options=CHEAP))
    after = doors.run(Given((*ENDS, Nudge), ("collapse",), options=CHEAP))
    assert alone.report is not None
    assert after.report is not None
    figures = [
        {case["case"]: (case["edit_id"], case["after"]) for group in body["groups"] for case in group["cases"]}
        for body in (alone.report, after.report)
    ]
    assert {name: figures[1][name] for name in figures[0]} == figures[0]


@pytest.mark.parametrize("editor", WRONG, ids=lambda editor: editor.__name__)
@pytest.mark.parametrize("suites", [("collapse",), ("collapse", "integrity")], ids=str)
def test_what_happens_around_an_edit_is_an_error_through_both_doors(
    doors: Doors, editor: type, suites: tuple[str, ...]
) -> None:
    found = doors.both(Given((editor,), suites, options=CHEAP))
    agree(*found)
    assert [said.verdict for said in found] == ["ERROR", "ERROR"]
    assert f"tiny-model-{editor.__name__}" in found[1].red


def test_broken_models_are_a_collapse_through_both_doors(doors: Doors) -> None:
    found = doors.both(Given(BREAKS, ("collapse",), options=CHEAP))
    agree(*found)
    assert [set(verdicts(said).values()) for said in found] == [{"COLLAPSE"}] * 2


@pytest.mark.thorough
def test_two_workers_say_the_same_as_none(doors: Doors) -> None:
    every = (NOTHING[0], ENDS[0], BREAKS[0], *WRONG, Nudge)  # one of each kind: two workers load the model twice
    alone = doors.both(Given(every, ("collapse", "integrity"), options=CHEAP))
    shared = doors.both(Given(every, ("collapse", "integrity"), workers=2, options=CHEAP))
    agree(*alone)
    agree(*shared)
    agree(alone[0], shared[1])
