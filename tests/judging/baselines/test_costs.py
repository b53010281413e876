"""Costs in a baseline, and limits on them: dearer is 12, what cannot be compared is said, and noise is no finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.comparison import Difference, Shift
from editsafety.judging.baselines.costs import FIGURES, AcceptedCosts, CostLimit
from editsafety.judging.baselines.gate import Gate
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import against, as_json, story
from editsafety.runs.case_record import Cost
from editsafety.runs.facts import Yardstick
from tests import builders
from tests.builders import FACTS, record, report, stepped

LAPTOP = "a laptop, 2 of 2 threads"
SERVER = "a server, 8 of 64 threads"


def run(
    seconds: Sequence[float],
    *,
    passes: Sequence[float] = (0.01,) * 8,
    machine: str = LAPTOP,
    bytes_: int | None = 4_000_000,
) -> RunReport:
    """A case for each number of seconds that an edit took."""
    rows = [
        stepped(record("rome", "normal", i), cost=Cost(one, 0.001, 0.002, 0.3, bytes_)) for i, one in enumerate(seconds)
    ]
    sticks = {("pocket-neo", "rome"): Yardstick("pocket-neo", "rome", tuple(passes), machine)} if passes else {}
    return report(rows, facts=replace(FACTS, yardsticks=sticks))


def gate(then: RunReport, *limits: str) -> Gate:
    accepted = AcceptedBaseline.from_text(AcceptedBaseline.of(then, costs=True).to_text(), "base.json")
    return Gate(accepted, "base.json", limits=tuple(map(CostLimit.parse, limits)))


def spread(mean: float, seed: int, n: int = 40) -> list[float]:
    """Seconds of cases that differ from each other by a factor of up to four, and from run to run by a few percent."""
    cases, noise = Random(1), Random(seed)
    return [mean * cases.uniform(0.5, 2.0) * noise.uniform(0.97, 1.03) for _ in range(n)]


def test_an_edit_that_takes_half_as_long_again_is_12_with_both_figures_and_n():
    found = gate(run(spread(0.2, 2)), "latency:20%").judged(run(spread(0.3, 3)))
    assert (found.verdict, found.exit_code) == (Verdict.REGRESSED, 12)
    (one,) = found.against.regressed
    assert (one.figure, one.shift) == ("latency", Shift.REGRESSED)
    assert one.sentence.startswith("latency of rome on pocket-neo, single edits: ")
    assert "forward passes before" in one.sentence
    assert "over 40 steps (95% interval 1." in one.sentence
    assert "allowed: 20% more" in one.sentence
    assert "REGRESSED in 1 way against base.json" in story.verdict_line(found)


def test_the_same_again_holds_and_is_told_with_its_figures():
    found = gate(run(spread(0.2, 2)), "latency:20%", "throughput:20%", "measuring:10%", "memory:10%").judged(
        run(spread(0.2, 3))
    )
    assert found.verdict is Verdict.PASS
    told = [one for one in against.sentences(found.against) if one.startswith("within its limit: ")]
    assert [one.split(" of rome")[0].removeprefix("within its limit: ") for one in told] == [
        "latency", "throughput", "measuring", "memory",
    ]  # fmt: skip
    assert as_json.document(found)["baseline"]["costs"] == list(found.against.costs)


def test_a_machine_twice_as_fast_gives_the_same_number_of_forward_passes():
    fast = run([one / 2 for one in spread(0.2, 3)], passes=(0.005,) * 8, machine=SERVER)
    found = gate(run(spread(0.2, 2)), "latency:20%").judged(fast)
    assert found.verdict is Verdict.PASS
    assert f"another machine: {LAPTOP} before, {SERVER} now" in found.against.costs[0]
    slow_editor = run(spread(0.2, 3), passes=(0.005,) * 8, machine=SERVER)
    assert gate(run(spread(0.2, 2)), "latency:20%").judged(slow_editor).exit_code == 12


def test_throughput_is_worse_when_it_is_lower():
    before, after = run([0.2] * 20), run([0.4] * 20)
    found = gate(before, "throughput:20%").judged(after)
    assert found.exit_code == 12
    assert "0.05 edits per forward pass before, 0.025 now (5 before, 2.5 now (edits per s))" in (
        found.against.regressed[0].sentence
    )
    assert gate(after, "throughput:20%").judged(before).exit_code == 0


def test_memory_is_compared_in_bytes():
    found = gate(run([0.2] * 20), "memory:10%").judged(run([0.2] * 20, bytes_=5_000_000))
    assert found.exit_code == 12
    assert "3.8 MiB before, 4.8 now, 1.25 times as much, over 20 steps" in found.against.regressed[0].sentence


def test_what_is_within_the_spread_of_the_cases_is_not_shown_and_passes_no_gate_silently():
    """One case in two is twice as slow: the median is past the limit, its interval is not."""
    before = run([0.2] * 21)
    after = run([0.2 if i < 10 else 0.4 for i in range(21)])
    found = gate(before, "latency:20%").judged(after)
    assert found.verdict is Verdict.PASS
    (one,) = found.against.of(Shift.UNSHOWN)
    assert one.sentence.endswith("; worse, but the steps do not show it")


def test_a_yardstick_that_scatters_makes_a_difference_uncertain():
    steady = run([0.3] * 20)
    assert gate(run([0.2] * 20), "latency:20%").judged(steady).exit_code == 12
    unsteady = run([0.3] * 20, passes=(0.004, 0.02, 0.01, 0.03, 0.005, 0.01))
    found = gate(run([0.2] * 20), "latency:20%").judged(unsteady)
    assert (found.exit_code, found.against.of(Shift.UNSHOWN)[0].figure) == (0, "latency")


def test_five_cases_are_too_few():
    found = gate(run([0.2] * 5), "latency:20%").judged(run([0.9] * 5))
    assert found.exit_code == 0
    assert found.against.of(Shift.UNSHOWN)[0].sentence.endswith("; worse, but at least 6 steps are needed")


def test_an_unchanged_editor_on_a_noisy_machine_stays_below_the_limit_a_hundred_times():
    base = gate(run(spread(0.2, 0)), "latency:20%", "throughput:20%")
    noise = Random(5)
    for seed in range(1, 51):
        passes = [0.01 * noise.uniform(0.9, 1.3) for _ in range(20)]
        assert base.judged(run(spread(0.2, seed), passes=passes)).exit_code == 0


def test_seconds_are_compared_on_the_same_machine_and_refused_by_name_on_another():
    then = run([0.2] * 20)
    assert gate(then, "absolute-latency:20%").judged(run([0.3] * 20)).exit_code == 12
    assert gate(then, "absolute-latency:20%").judged(run([0.2] * 20)).exit_code == 0
    found = gate(then, "absolute-latency:20%").judged(run([0.2] * 20, machine=SERVER))
    assert (found.verdict, found.exit_code) == (Verdict.ERROR, 13)
    (said,) = found.against.incomparable
    assert LAPTOP in said
    assert SERVER in said
    assert "seconds of two machines are not compared" in said
    assert "not comparable with base.json" in story.verdict_line(found)
    assert f"not compared: {said}" in against.sentences(found.against)


@pytest.mark.parametrize(
    ("then", "now", "limit", "said"),
    [
        (
            run([0.2] * 9),
            run([0.2] * 9, passes=()),
            "latency:20%",
            "no forward pass of the model was timed in this run",
        ),
        (run([0.2] * 9, passes=()), run([0.2] * 9), "latency:20%", "was timed in the baseline"),
        (run([0.2] * 9), run([0.2] * 9, bytes_=None), "memory:20%", "not measured of any case that is in both runs"),
        (run([0.2] * 9, bytes_=0), run([0.2] * 9), "memory:20%", "the median was 0 when it was accepted"),
    ],
)
def test_what_was_not_measured_is_an_error_and_never_a_pass(then, now, limit, said):
    found = gate(then, limit).judged(now)
    assert found.exit_code == 13
    assert said in found.against.incomparable[0]


def test_what_costs_nothing_before_and_now_holds():
    found = gate(run([0.2] * 9, bytes_=0), "memory:20%").judged(run([0.2] * 9, bytes_=0))
    assert (found.exit_code, found.against.costs[0].endswith("0 before and now, over 9 steps")) == (0, True)


def test_an_editor_that_is_not_in_the_baseline_is_no_silent_pass():
    other = report([record("ft", "normal", i) for i in range(9)])
    found = gate(run([0.2] * 9), "latency:20%").judged(other)
    assert found.exit_code == 13
    assert found.against.incomparable == ("latency: no editor on a model is in both, so no cost was compared",)


def test_steps_of_courses_are_compared_by_themselves():
    def walked(seconds: float) -> RunReport:
        steps = [replace(builders.step(i + 1), cost=Cost(edit=seconds)) for i in range(8)]
        one = builders.course(*steps)
        cases = [record("rome", "hard", 0)]
        made = report(cases, facts=run([0.2]).facts)
        from editsafety.judging.checks import judge_case
        from editsafety.judging.policy import Policy

        return replace(made, courses=(judge_case(Policy.read("default"), one),))

    found = gate(walked(0.2), "latency:20%").judged(walked(0.4))
    assert found.against.regressed[-1].sentence.startswith("latency of rome on pocket-neo, sequential: ")
    assert "over 8 steps" in found.against.regressed[-1].sentence


def test_costs_are_in_the_file_only_when_they_are_asked_for(tmp_path: Path) -> None:
    without = AcceptedBaseline.of(run([0.2] * 9))
    assert "costs" not in without.to_text()
    whole = AcceptedBaseline.of(run([0.2] * 9), costs=True)
    assert AcceptedBaseline.from_text(whole.to_text(), "here") == whole
    (tmp_path / "base.json").write_text(without.to_text())
    with pytest.raises(UsageError, match=r"holds no costs, so --fail-over has nothing.*baseline accept --costs"):
        Gate.read(tmp_path / "base.json", fail_over=["latency:20%"])


@pytest.mark.parametrize("wrong", ['"fast"', "true", "NaN", "-1"])
def test_a_cost_that_is_no_number_is_refused(wrong: str) -> None:
    text = AcceptedBaseline.of(run([0.25] * 2), costs=True).to_text().replace(": 0.25", f": {wrong}", 1)
    with pytest.raises(UsageError, match=r"single latency of pocket-neo-rome-normal-0000 is .*expected a number"):
        AcceptedBaseline.from_text(text, "base.json")


def test_a_limit_needs_a_baseline():
    with pytest.raises(UsageError, match="--fail-over latency:20% needs what it is compared with: give --baseline"):
        Gate.asked(None, None, ["latency:20%"])
    assert Gate.asked(None, None, None) is None


@pytest.mark.parametrize(
    "text", ["latency", "latency:", "latency:20", "latency:-5%", "latency:0%", "latency:nan%", "throughput:100%"]
)
def test_a_share_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a cost and a share above 0%"):
        CostLimit.parse(text)


@pytest.mark.parametrize("name", ["speed", "absolute-memory", ""])
def test_a_cost_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="no cost named"):
        CostLimit.parse(f"{name}:20%")


def test_limits_are_read_as_they_are_typed():
    one = CostLimit.parse("absolute-throughput:12.5%")
    assert (one.name, one.share, one.end) == ("absolute-throughput", 0.125, 0.875)
    assert CostLimit.parse("memory:150%").end == 2.5


SENTENCES = {
    "latency:20%": "25 forward passes before, 50 now (0.25 before, 0.5 now (s per edit)), 2 times as much, over 8 "
    "steps (95% interval 2 to 2; allowed: 20% more)",
    "absolute-latency:20%": "0.25 before, 0.5 now (s per edit), 2 times as much, over 8 steps "
    "(95% interval 2 to 2; allowed: 20% more)",
    "throughput:12.5%": "0.04 edits per forward pass before, 0.02 now (4 before, 2 now (edits per s)), 0.5 times as "
    "much, over 8 steps (95% interval 0.5 to 0.5; allowed: 12.5% less)",
    "measuring:10%": "15 forward passes before, 30 now (0.15 before, 0.3 now (s to measure)), 2 times as much, over 8 "
    "steps (95% interval 2 to 2; allowed: 10% more)",
    "memory:10%": "2.0 MiB before, 4.0 now, 2 times as much, over 8 steps (95% interval 2 to 2; allowed: 10% more)",
}


@pytest.mark.parametrize("limit", SENTENCES)
def test_what_became_dearer_is_told_in_what_is_compared_and_in_what_a_clock_says(limit: str) -> None:
    def made(factor: int) -> RunReport:
        cost = Cost(0.25 * factor, 0.001, 0.002, 0.15 * factor, 2**21 * factor)
        rows = [stepped(record("rome", "normal", i), cost=cost) for i in range(8)]
        sticks = {("pocket-neo", "rome"): Yardstick("pocket-neo", "rome", (0.01,) * 8, LAPTOP)}
        return report(rows, facts=replace(FACTS, yardsticks=sticks))

    found = gate(made(1), limit).judged(made(2)).against
    (one,) = found.differences
    assert one == Difference(
        Shift.REGRESSED, "blocking", "pocket-neo", "rome",
        f"{limit.partition(':')[0]} of rome on pocket-neo, single edits: {SENTENCES[limit]}", limit.partition(":")[0],
    )  # fmt: skip
    assert (found.costs, found.incomparable) == ((), ())


def test_machines_without_a_name_are_never_the_same_one():
    nameless = run([0.2] * 8, machine="")
    (said,) = gate(nameless, "absolute-latency:20%").judged(nameless).against.incomparable
    assert said == (
        "absolute-latency of rome on pocket-neo: seconds of two machines are not compared (an unknown machine in the "
        "baseline, an unknown one now); take latency without `absolute-`"
    )
    (held,) = gate(run([0.2] * 8), "latency:20%").judged(nameless).against.costs
    assert held.endswith(f"; another machine: {LAPTOP} before, unknown now")
    (held,) = gate(nameless, "latency:20%").judged(run([0.2] * 8)).against.costs
    assert held.endswith(f"; another machine: unknown before, {LAPTOP} now")


@pytest.mark.parametrize(("name", "better", "worse"), [("latency", 1.2, 1.21), ("throughput", 0.8, 0.79)])
def test_a_limit_itself_is_not_past_it(name: str, better: float, worse: float) -> None:
    one = CostLimit.parse(f"{name}:20%")
    assert (one.past(better), one.past(worse)) == (False, True)


def test_costs_are_kept_to_five_digits_and_only_where_they_were_measured():
    costs = [Cost(0.1234567, measure=None, edit_bytes=123456789), Cost(None, measure=0.3), Cost(float("inf"))]
    rows = [stepped(record("rome", "normal", i), cost=cost) for i, cost in enumerate(costs)]
    made = AcceptedCosts.of(report(rows), "pocket-neo", "rome", rows)
    names = [f"pocket-neo-rome-normal-000{i}" for i in range(2)]
    assert made == AcceptedCosts(
        "",
        (),
        {"single": {"latency": {names[0]: 0.12346}, "memory": {names[0]: 123460000.0}, "measuring": {names[1]: 0.3}}},
    )
    assert made.passes is None
    assert made.values("single", FIGURES["throughput"]) == {names[0]: pytest.approx(1 / 0.12346)}
    assert made.values("sequential", FIGURES["latency"]) == {}
    free = replace(made, figures={"single": {"latency": {"a": 0.0, "b": 2.0}}}, yardstick=(0.1, 0.2, 0.9))
    assert (free.values("single", FIGURES["throughput"]), free.passes) == ({"b": 0.5}, 0.2)


@pytest.mark.parametrize("wrong", ["0.0", "0"])
def test_a_yardstick_of_no_seconds_is_refused(wrong: str) -> None:
    text = AcceptedBaseline.of(run([0.25] * 2), costs=True).to_text().replace("[0.01,", f"[{wrong},", 1)
    with pytest.raises(UsageError, match="the yardstick is 0; expected seconds"):
        AcceptedBaseline.from_text(text, "base.json")


def test_a_gate_that_is_asked_for_is_that_of_the_file_with_what_may_differ_and_the_limits(tmp_path: Path) -> None:
    accepted = AcceptedBaseline.of(run([0.2] * 9), costs=True)
    (tmp_path / "base.json").write_text(accepted.to_text())
    made = Gate.asked(tmp_path / "base.json", ["seed"], ["latency:20%"])
    assert made == Gate(accepted, "base.json", frozenset({"seed"}), (CostLimit.parse("latency:20%"),))
    assert Gate.asked(tmp_path / "base.json", None, None) == Gate(accepted, "base.json")


def test_seconds_are_told_to_three_digits():
    (said,) = gate(run([0.123456] * 8), "absolute-latency:20%").judged(run([0.123456] * 8)).against.costs
    assert "single edits: 0.123 before, 0.123 now (s per edit), 1 times as much" in said


def test_the_limits_are_held_against_every_editor_and_told_for_each():
    rows = [record(editor, "normal", i) for editor in ("ft", "rome") for i in range(8)]
    sticks = {("pocket-neo", one): Yardstick("pocket-neo", one, (0.01,) * 8, LAPTOP) for one in ("ft", "rome")}
    made = report(rows, facts=replace(FACTS, yardsticks=sticks))
    held = gate(made, "latency:20%", "memory:10%").judged(made).against.costs
    assert [one.partition(" on ")[0] for one in held] == [
        "latency of ft", "memory of ft", "latency of rome", "memory of rome",
    ]  # fmt: skip
