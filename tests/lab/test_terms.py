"""How courses are walked: what a run's options say, what is in a key, and what traits refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from editsafety.editors import Traits
from editsafety.errors import UsageError
from editsafety.lab.terms import Terms, refusal, why_not
from editsafety.runs.case import Case
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Schedule
from tests import tiny
from tests.system import world
from tests.system.commands import LENIENT


@dataclass(frozen=True)
class Constant:
    """A probe."""

    value: float
    name: str = "constant"

    def __call__(self, handle: Any, batch_size: int) -> Measurement:
        return Measurement(self.name, 1, "rate", self.value, n=1)


def test_options_and_policy_say_where_a_model_is_broken_and_whether_to_go_on(
    paths: dict[str, str], tmp_path: Path
) -> None:
    terms = Terms.of(world.plan(paths, "Nudge"), paths["model"])
    assert (terms.limit, terms.stop, terms.probes) == (2.0, True, ())
    (tmp_path / "lenient.yaml").write_text(LENIENT.replace("1.25", "7.5"))
    asked = tmp_path / "choosing.jsonl"
    asked.write_text('{"id": "0", "prompt": "Mirel works as a", "options": ["baker", "judge"], "gold": 0}\n')
    more = {"policy": str(tmp_path / "lenient.yaml"), "keep_going": True, "probe": (str(asked),)}
    other = Terms.of(world.plan(paths, "Nudge", **more), paths["model"])
    assert (other.limit, other.stop, [probe.name for probe in other.probes]) == (7.5, False, ["choosing"])


def test_what_can_change_a_course_is_in_what_its_keys_share() -> None:
    every = [
        Terms(2.0),
        Terms(3.0),
        Terms(2.0, stop=False),
        Terms(2.0, probes=(Constant(0.5),)),
        Terms(2.0, probes=(Constant(0.6),)),
        Terms(2.0, probes=(Constant(0.5), Constant(0.6))),
    ]
    assert len({terms.shared("block") for terms in every}) == len(every)
    assert Terms(2.0, probes=(Constant(0.5),)).shared("block") == every[3].shared("block")
    assert every[0].shared("block") != every[0].shared("another block")


def test_a_probe_that_cannot_be_told_apart_is_refused() -> None:
    nameless: Callable[..., Measurement] = lambda handle, size: Constant(1.0)(handle, size)  # noqa: E731
    with pytest.raises(UsageError, match="its repr has to tell what it measures"):
        Terms(2.0, probes=(nameless,)).shared("block")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("traits", "schedule", "requests", "said"),
    [
        (Traits(), Schedule("single"), 1, ""),
        (Traits(), Schedule("sequential"), 9, ""),
        (Traits(batch=True), Schedule("batch", (2, 5)), 9, ""),
        (Traits(), Schedule("batch", (1, 4)), 9, "mine edits one fact at a time; a batch of 4 cannot be given to it."),
        (Traits(), Schedule("batch", (1, 4)), 1, ""),
        (Traits(sequential=False), Schedule("sequential"), 1, ""),
        (
            *(Traits(sequential=False), Schedule("sequential"), 2),
            "mine cannot be applied on top of itself; give at most 1 request(s).",
        ),
        (
            *(Traits(batch=True, sequential=False), Schedule("batch-sequential", (3,)), 4),
            "mine cannot be applied on top of itself; give at most 3 request(s).",
        ),
        (Traits(batch=True, sequential=False), Schedule("batch-sequential", (3,)), 3, ""),
    ],
)
def test_traits_say_which_schedules_an_editor_can_go_along(
    traits: Traits, schedule: Schedule, requests: int, said: str
) -> None:
    assert why_not("mine", traits, schedule, requests) == said


def test_a_case_is_refused_before_any_model_is_loaded(paths: dict[str, str]) -> None:
    rows = tuple(tiny.request(f"case-{i}") for i in range(4))
    case = Case("nobody/no-such-model", world.spelled(paths, "Nudge"), "normal", rows, Schedule("batch", (4,)))
    assert refusal(case) == "Nudge edits one fact at a time; a batch of 4 cannot be given to it."
    assert refusal(Case(*case.block, "normal", rows, Schedule("sequential"))) is None
    assert refusal(Case(*case.block, "normal", rows[:1])) is None
