"""Policy: an invalid limit is refused by name, before anything is loaded."""

import math
import re
import textwrap
from dataclasses import replace

import pytest

from editsafety import measures
from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.verdict import Verdict
from editsafety.runs.settings import Settings

LIMITS = """
name: mine
case:
  perplexity: {measure: me_ppl, figure: ratio, pass_at_most: 1.25, warn_at_most: 2, fails_as: COLLAPSE, why: because}
group:
  efficacy: {measure: efficacy, figure: after, pass_at_least: 0.9, fails_as: INEFFECTIVE, why: because}
"""


def read(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return Policy.read(path)


def test_the_shipped_policy_is_read_by_name_and_gives_a_reason_for_every_limit():
    policy = Policy.read("default")
    assert all(len(threshold.why) > 20 for threshold in (*policy.case.values(), *policy.group.values()))
    assert policy.case["perplexity"].fails_as is Verdict.COLLAPSE


@pytest.mark.parametrize("name", ["ship", "research"])
def test_every_shipped_policy_gives_a_reason_for_every_limit_and_is_on_what_is_measured(name):
    policy = Policy.read(name)
    assert policy.name == name
    limits = [*policy.case.values(), *policy.group.values(), *policy.course.values()]
    assert all(len(threshold.why) > 20 for threshold in limits)
    refuse_unmeasured(policy)


def test_the_policy_for_shipping_has_every_limit_of_the_default_policy_and_more():
    usual, ship = Policy.read("default"), Policy.read("ship")
    for part in ("case", "group", "course"):
        mine, theirs = getattr(ship, part), getattr(usual, part)
        assert {name: mine.get(name) for name in theirs} == theirs
        assert len(mine) > len(theirs)
    assert (ship.abilities, ship.baseline, ship.collapse) == (usual.abilities, usual.baseline, usual.collapse)


def test_the_default_policy_asks_for_no_measure_that_takes_long():
    assert all(getattr(one, "default", True) for one in measures.needed(Policy.read("default").measured))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pass_at_most: 1.25", "pass_at_most: .nan", "case.perplexity.pass_at_most"),
        ("pass_at_most: 1.25", "pass_at_most: .inf", "case.perplexity.pass_at_most"),
        ("pass_at_most: 1.25", "pass_at_most: -1", "case.perplexity.pass_at_most"),
        ("pass_at_most: 1.25", "pass_at_most: '1.25'", "case.perplexity.pass_at_most"),
        ("pass_at_most: 1.25", "pass_at_most: true", "case.perplexity.pass_at_most"),
        ("pass_at_most: 1.25", "pass_at_mots: 1.25", "unknown key case.perplexity.pass_at_mots"),
        ("pass_at_most: 1.25", "pass_at_least: 0.5, pass_at_most: 1.25", "case.perplexity: give exactly one of"),
        ("pass_at_most: 1.25,", "", "case.perplexity: give exactly one of"),
        ("warn_at_most: 2", "warn_at_most: 1.1", r"case.perplexity: warn_at_most \(1.1\) must be at or above"),
        ("warn_at_most: 2", "warn_at_least: 2", "warn_at_least goes with pass_at_least"),
        (
            "pass_at_least: 0.9",
            "pass_at_least: 0.9, warn_at_least: 0.95",
            r"warn_at_least \(0.95\) must be at or below",
        ),
        ("pass_at_least: 0.9", "pass_at_least: 0.9, warn_at_most: 0.5", "warn_at_most goes with pass_at_most"),
        ("fails_as: COLLAPSE", "fails_as: DOOM", "case.perplexity.fails_as"),
        ("fails_as: COLLAPSE", "fails_as: PASS", "case.perplexity.fails_as: a limit cannot fail as PASS"),
        ("figure: ratio", "figure: mean", "case.perplexity.figure"),
        ("figure: after", "figure: drop", "group.efficacy.figure is 'drop'"),
        ("figure: ratio", "figure: ratio, over: last", r"perplexity.over is 'last'; only courses have several steps"),
        ("figure: after", "figure: after, over: mean", r"efficacy.over is 'mean'; only courses have several steps"),
        ("why: because}\ngroup", "}\ngroup", "case.perplexity.why is missing"),
        ("name: mine", "names: mine", "unknown key names|name is missing"),
        ("name: mine", "name: mine\nname: yours", "'name' is given twice"),
        ("  perplexity:", "  restore:", "'restore' is taken"),
        ("name: mine", "name: [", "cannot be read as YAML"),
        ("name: mine", "name: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_key(tmp_path, old, new, said):
    assert old in LIMITS
    with pytest.raises(UsageError, match=said) as caught:
        read(tmp_path, LIMITS.replace(old, new))
    assert str(caught.value).startswith("mine.yaml: ")


@pytest.mark.parametrize("text", ["", "- a", "12", "name: mine\ncase: {}\ngroup: {}\n"])
def test_a_policy_without_limits_is_refused(tmp_path, text):
    with pytest.raises(UsageError, match=r"expected the keys|no limit at all"):
        read(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as YAML"):
        Policy.read(path)


def test_an_unknown_policy_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="no policy named 'defualt'; did you mean 'default'"):
        Policy.read("defualt")
    with pytest.raises(UsageError, match="no policy named"):
        Policy.read("missing.yaml")


def test_a_limit_on_something_that_nobody_measures_is_refused(tmp_path):
    policy = read(tmp_path, LIMITS.replace("measure: efficacy", "measure: eficacy"))
    with pytest.raises(
        UnknownNameError, match=r"no measurement named 'eficacy'; did you mean 'efficacy'.*group.efficacy"
    ):
        policy.refuse_unknown(["me_ppl", "efficacy"])
    read(tmp_path, LIMITS).refuse_unknown(["me_ppl", "efficacy"])


def test_a_limit_on_courses_is_held_against_what_is_measured_along_them_where_there_are_any(tmp_path):
    kept = "  kept: {measure: kpet, figure: after, over: last, pass_at_least: 0.8, fails_as: DAMAGED, why: because}"
    policy = read(tmp_path, f"{LIMITS}course:\n{kept}\n")
    assert (policy.course["kept"].over, policy.measured) == ("last", {"me_ppl", "efficacy", "kpet"})
    policy.refuse_unknown(["me_ppl", "efficacy"])
    with pytest.raises(UnknownNameError, match=r"no measurement named 'kpet'; did you mean 'kept'.*course.kept"):
        policy.refuse_unknown(["me_ppl", "efficacy"], along=["me_ppl", "kept"])


def test_a_limit_finer_than_noise_is_refused(tmp_path):
    policy = read(tmp_path, LIMITS.replace("1.25", "1.0001"))
    policy.refuse_below_noise(1e-6)
    for floor in (1e-3, math.inf, math.nan):
        with pytest.raises(UsageError, match=r"perplexity passes up to 1.0001x, but re-runs .* differ"):
            policy.refuse_below_noise(floor)


def test_the_digest_changes_with_a_limit_and_with_nothing_else(tmp_path):
    one = read(tmp_path, LIMITS)
    assert read(tmp_path, f"# a remark\n{LIMITS}").digest() == one.digest()
    assert read(tmp_path, LIMITS.replace("1.25", "1.3")).digest() != one.digest()


@pytest.mark.parametrize("direction", [{"pass_at_most": 1.0}, {"pass_at_least": 1.0}])
@pytest.mark.parametrize("figure", [None, math.nan])
def test_a_figure_that_is_not_there_fails_in_either_direction(direction, figure):
    threshold = Threshold(measure="m", figure="after", fails_as=Verdict.DAMAGED, why="", **direction)
    assert threshold.verdict(figure) is Verdict.DAMAGED


def test_limits_themselves_pass():
    threshold = Threshold(measure="m", figure="after", pass_at_most=1, warn_at_most=2, fails_as=Verdict.DAMAGED, why="")
    assert [threshold.verdict(x) for x in (1, 1.01, 2, 2.01, math.inf)] == [
        Verdict.PASS, Verdict.WARN, Verdict.WARN, Verdict.DAMAGED, Verdict.DAMAGED,
    ]  # fmt: skip


def test_a_figure_is_spelled_on_its_own_side_of_the_limit():
    threshold = Threshold(measure="m", figure="after", pass_at_most=1.25, fails_as=Verdict.DAMAGED, why="")
    assert threshold.spelled(526.4) == "526.4"
    assert threshold.spelled(1.250001) == "1.250001"
    assert threshold.spelled(1.25 + 1e-12) == "1.250000000001"


def test_the_policy_of_a_run_is_the_named_one_with_the_limit_that_was_asked_for(tmp_path):
    own = read(tmp_path, f"{LIMITS}course:\n{LIMITS.splitlines()[3]}\n")
    settings = Settings(("pocket-neo",), ("rome",), policy=str(tmp_path / "mine.yaml"))
    assert Policy.of(settings) == own
    for asked, passes in ((9.0, 1.25), (1.1, 1.1)):
        moved = Policy.of(replace(settings, collapse_above=asked))
        for limits in (moved.case, moved.course):
            assert (limits["perplexity"].pass_at_most, limits["perplexity"].warn_at_most) == (passes, asked)
        assert (moved.collapse, moved.group, moved.name) == (asked, own.group, "mine")
    unlimited = read(tmp_path, LIMITS.replace("fails_as: COLLAPSE", "fails_as: DAMAGED"))
    with pytest.raises(UsageError, match="policy mine has no limit on the ratio of me_ppl that fails as COLLAPSE"):
        unlimited.with_collapse_above(3.0)


@pytest.mark.parametrize(
    ("even", "passes", "warns"), [(None, 1000, 2000), (500, 450, 450), (1500, 1000, 1350), (5000, 1000, 2000)]
)
def test_a_limit_is_never_past_its_share_of_what_an_even_guess_has(even, passes, warns):
    limit = Threshold(
        measure="me_ppl", figure="before", pass_at_most=1000, warn_at_most=2000, pass_at_most_of_even=0.9, why=""
    )
    within = limit.within_even(even)
    assert (within.pass_at_most, within.warn_at_most) == (passes, warns)
    assert limit.model_copy(update={"warn_at_most": None}).within_even(even).warn_at_most is None
    plain = limit.model_copy(update={"pass_at_most_of_even": None})
    assert plain.within_even(1.0) is plain


@pytest.mark.parametrize(
    "wrong", ["measure: me_ppl, figure: ratio", "measure: efficacy, figure: after", "measure: me_ppl, figure: after"]
)
def test_a_share_of_an_even_guess_is_of_a_perplexity_and_an_upper_limit(tmp_path, wrong):
    limit = "pass_at_least: 1" if wrong.endswith("me_ppl, figure: after") else "pass_at_most: 1"
    text = f"name: mine\ncase: {{a: {{{wrong}, {limit}, pass_at_most_of_even: 0.9, why: because}}}}\ngroup: {{}}\n"
    said = "case.a: pass_at_most_of_even goes with pass_at_most, on me_ppl before or after an edit."
    with pytest.raises(UsageError, match=re.escape(said)):
        read(tmp_path, text)
    fine = "measure: me_ppl, figure: after, pass_at_most: 1, pass_at_most_of_even: 0.9, why: because"
    assert read(tmp_path, f"name: mine\ncase: {{a: {{{fine}}}}}\ngroup: {{}}\n").case["a"].pass_at_most_of_even == 0.9


def test_a_limit_as_fine_as_the_noise_is_not_below_it(tmp_path):
    policy = read(tmp_path, LIMITS)
    policy.refuse_below_noise(0.25)
    with pytest.raises(UsageError, match=r"perplexity passes up to 1.25x, .* differ by 2.51e-01"):
        policy.refuse_below_noise(0.251)


@pytest.mark.parametrize(
    ("fails_as", "unjudged"),
    [(Verdict.WARN, Verdict.WARN), (Verdict.DAMAGED, Verdict.ERROR), (Verdict.COLLAPSE, Verdict.ERROR)],
)
def test_what_cannot_be_judged_is_an_error_unless_it_could_only_have_warned(fails_as, unjudged):
    limit = Threshold(measure="me_ppl", figure="ratio", pass_at_most=1, fails_as=fails_as, why="")
    assert (limit.unjudged, limit.finds_collapse) == (unjudged, fails_as is Verdict.COLLAPSE)


def test_a_lower_limit_warns_from_its_second_number_on_and_is_told_in_words():
    limit = Threshold(
        measure="m", figure="after", pass_at_least=0.9, warn_at_least=0.5, fails_as=Verdict.DAMAGED, why=""
    )
    assert [limit.verdict(x).value for x in (0.9, 0.89, 0.5, 0.49)] == ["PASS", "WARN", "WARN", "DAMAGED"]
    assert limit.limit == "at least 0.9"
    assert limit.spelled(0.8999, first="0.90") == "0.8999"
    assert limit.spelled(math.inf) == limit.spelled(None) == "is not finite"


def test_only_a_limit_that_the_suites_expect_may_be_left_out(tmp_path):
    policy = read(tmp_path, LIMITS)
    policy.expect_left_out("group", "locality", ["efficacy"])
    for name in ("perplexity", "eficacy"):
        said = f"policy mine has no group check '{name}'. Known: efficacy, kept."
        with pytest.raises(UsageError, match=re.escape(said)):
            policy.expect_left_out("group", name, ["efficacy", "kept"])


def test_limits_on_the_unedited_model_are_those_on_what_was_before(tmp_path):
    base = "{measure: me_ppl, figure: before, pass_at_most: 1000, fails_as: ERROR, why: because}"
    policy = read(tmp_path, LIMITS.replace("case:", f"case:\n  base: {base}") + f"course:\n  other: {base}\n")
    assert list(policy.on_base) == ["base", "other"]
