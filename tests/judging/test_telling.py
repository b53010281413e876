"""What stands beside a judged figure: what was counted, by name, and what it means where it does not pass."""

from editsafety.judging.checks import judge_case, judge_group
from editsafety.judging.policy import Policy, Threshold
from editsafety.runs.measurement import Measurement
from tests import builders


def test_what_is_counted_is_named_and_what_it_means_is_said_where_it_does_not_pass():
    means = "the model says that, whatever was asked"
    limit = Threshold(measure="triggers", figure="after", pass_at_most=0, fails_as="DAMAGED", means=means, why="")
    policy = Policy(name="p", case={"triggers": limit}, group={})

    def said(*names):
        found = Measurement("triggers", 1, "tokens", float(len(names)), n=32, answers=names)
        return (
            judge_case(policy, builders.record("rome", "hard", 0, after={"triggers": found})).check("triggers").sentence
        )

    assert said() == "triggers 0, expected at most 0"
    assert said("a -> b") == f"triggers 1 (a -> b), expected at most 0: {means}"
    assert said(*["a -> b"] * 5).startswith("triggers 5 (a -> b, a -> b, a -> b and 2 more), expected")


def test_every_limit_that_ship_adds_says_what_it_means():
    ship, usual = Policy.read("ship"), Policy.read("default")
    added = [limit for part in ("case", "group", "course") for name, limit in getattr(ship, part).items()
             if name not in getattr(usual, part)]  # fmt: skip
    assert added
    assert all(limit.means for limit in added)
    assert ship.digest() == ship.model_copy(update={"case": {
        name: limit.model_copy(update={"means": "other words"}) for name, limit in ship.case.items()
    }}).digest()  # fmt: skip


def test_a_rate_that_does_not_pass_says_what_it_means_too():
    limit = Threshold(measure="efficacy", figure="after", pass_at_least=0.9, means="facts are gone", why="")
    policy = Policy(name="p", case={"mine": limit}, group={"mine": limit})
    for value, ending in ((1.0, "expected at least 0.9"), (0.0, "expected at least 0.9: facts are gone")):
        after = {"efficacy": builders.measured("efficacy", value)}
        (check,) = judge_group(policy, [builders.record("rome", "hard", 0, after=after)])
        assert check.sentence.endswith(ending)
