"""Which cases a test is about: the marks `schedule` and `probed`, courses, and what an editor's traits do not allow."""

from __future__ import annotations

import json

import pytest

from editsafety.cli.run import stored
from tests.system import world

HEAD = "import pytest\n\n"
ONLY = "tiny-model-Nudge-"
BLOCK = RUN = 1  # what the report says of the editor, and of the run, is told as a test, too


@pytest.fixture
def run(pytester, paths):
    """Run a user's own test file on the tiny world; the schedules measure after every request."""

    def runner(text, *args, editors=("Nudge",)):
        pytester.makepyfile(test_mine=HEAD + text)
        options = [*world.options(paths, *editors), "--editsafety-every=1", "-p", "no:cacheprovider"]
        return pytester.runpytest(*options, *args)

    return runner


@pytest.fixture
def choosing(tmp_path):
    """An ability of four items."""
    asked = [
        {"id": str(i), "prompt": "Mirel works as a", "options": ["baker", "judge"], "gold": i % 2} for i in range(4)
    ]
    path = tmp_path / "choosing.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return f"--editsafety-probe={path}"


def ids(result):
    """The ids of the collected items, in order."""
    return [line.rpartition("[")[2].rstrip("]") for line in result.outlines if "::" in line]


def body(pytester):
    (path,) = pytester.path.glob("reports/*/report.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (None, ["hard-0", "hard-1", "normal-0", "normal-1"]),
        (["single"], ["hard-0", "hard-1", "normal-0", "normal-1"]),
        (["sequential"], ["hard-sequential", "normal-sequential"]),
        (
            ["batch", "batch-sequential"],
            [f"{s}-{k}" for s in ("hard", "normal") for k in ("batch", "batch-sequential")],
        ),
        (["single", "batch"], ["hard-0", "hard-1", "normal-0", "normal-1", "hard-batch", "normal-batch"]),
    ],
    ids=str,
)
def test_the_mark_schedule_selects_the_cases_of_these_schedules(run, kinds, expected):
    mark = "" if kinds is None else f"@pytest.mark.schedule{tuple(kinds)!r}\n"
    result = run(f"{mark}def test_it(case):\n    pass\n", "--collect-only", "-q")
    assert ids(result) == [f"{ONLY}{one}" for one in expected]


def test_marks_of_a_module_and_of_a_test_add_up(run):
    text = "pytestmark = pytest.mark.schedule('batch')\n@pytest.mark.schedule('single')\ndef test_it(case):\n    pass\n"
    found = ids(run(text, "--collect-only", "-q", "-k", "hard"))
    assert found == [f"{ONLY}{one}" for one in ("hard-0", "hard-1", "hard-batch")]


def test_the_mark_probed_takes_a_few_single_edits_of_each_stream_and_measures_abilities(run, pytester, choosing):
    text = """
@pytest.mark.probed
def test_it(case, result):
    assert result.abilities == ("choosing",)
    assert result.after["choosing"].n == result.before["choosing"].n == 4

def test_another(case, result):
    assert "choosing" in result.after or not case.id.endswith("-0")
"""
    result = run(text, choosing, "--editsafety-singles=1")
    # No check was named, so the report judges by all of them, and a nudge writes no fact.
    result.assert_outcomes(passed=6 + RUN, failed=1)
    cases = {case["case"]: case for group in body(pytester)["groups"] for case in group["cases"]}
    assert {name.removeprefix(ONLY): "choosing" in case["before"] for name, case in cases.items()} == {
        "hard-0": True,
        "hard-1": False,
        "normal-0": True,
        "normal-1": False,
    }


def test_probed_tests_of_a_model_without_abilities_are_skipped_and_nothing_is_computed(run, pytester):
    result = run(
        "@pytest.mark.probed\n@pytest.mark.schedule('single', 'sequential')\ndef test_it(case):\n    pass\n", "-rs"
    )
    result.assert_outcomes(skipped=6)
    result.stdout.fnmatch_lines(["*comes with no abilities to measure; name some: --editsafety-probe READER:FILE*"])
    assert not list(pytester.path.glob("reports/*/store.sqlite"))


def test_a_course_is_judged_by_the_limits_on_courses(run, pytester):
    text = """
pytestmark = pytest.mark.schedule("sequential")

def test_it_stands(judged):
    judged("perplexity")

def test_it_grew_little(judged, result, case):
    judged("norm_growth")
    assert case.is_course
    assert [step.edits for step in result.steps] == [1, 2]
"""
    run(text).assert_outcomes(passed=4 + BLOCK + RUN)
    found = body(pytester)
    assert (found["verdict"], found["groups"]) == ("PASS", [])
    assert [one["case"] for one in found["courses"]] == [f"{ONLY}{s}-sequential" for s in ("hard", "normal")]


def test_a_course_that_collapses_fails_with_its_id_and_the_sentence(run):
    text = "@pytest.mark.schedule('sequential')\ndef test_it(judged):\n    judged('perplexity')\n"
    result = run(text, "-k", "hard", editors=("Explodes",))
    result.assert_outcomes(failed=1 + BLOCK, passed=RUN)
    result.stdout.fnmatch_lines(["*COLLAPSE tiny-model-Explodes-hard-sequential: perplexity*at worst, after 1 edit,*"])


def test_an_unknown_check_of_a_course_names_those_that_there_are(run):
    text = "@pytest.mark.schedule('sequential')\ndef test_it(judged):\n    judged('efficacy')\n"
    result = run(text, "-k", "hard")
    result.assert_outcomes(failed=1 + BLOCK, passed=RUN)
    assert "has no course check 'efficacy'. Known: perplexity" in result.stdout.str()


def test_a_course_that_traits_do_not_allow_is_skipped_with_the_reason_and_does_not_apply(run, pytester):
    text = "@pytest.mark.schedule('batch', 'sequential')\ndef test_it(judged):\n    judged('perplexity')\n"
    result = run(text, "-rs", "--editsafety-size=2", "-k", "hard")
    result.assert_outcomes(passed=1 + BLOCK + RUN, skipped=1)
    reason = "Nudge edits one fact at a time; a batch of 2 cannot be given to it."
    assert reason in " ".join(result.stdout.str().split())
    (folder,) = pytester.path.glob("reports/*")
    report = stored(folder)
    assert report.facts.not_applicable == {f"{ONLY}hard-batch": reason}
    assert (report.missing_courses, report.exit_code) == ((), 0)
    assert [one.record.case for one in report.courses] == [f"{ONLY}hard-sequential"]


def test_a_rate_that_no_case_has_is_skipped_with_the_reason(run, tmp_path):
    limit = {"measure": "survives_bfloat16", "figure": "after", "pass_at_least": 0.9, "fails_as": "DAMAGED", "why": "w"}
    collapse = {"measure": "me_ppl", "figure": "ratio", "pass_at_most": 2.0, "fails_as": "COLLAPSE", "why": "w"}
    policy = {"name": "mine", "case": {"perplexity": collapse}, "group": {"survives_bfloat16": limit}}
    (tmp_path / "mine.yaml").write_text(json.dumps(policy))
    text = """
def test_it_stands(judged):
    judged("perplexity")

def test_it_survives(judged_group):
    judged_group("survives_bfloat16")

def test_it_takes(judged_group):
    judged_group("efficacy")
"""
    result = run(text, "-rs", "-k", "hard", f"--editsafety-policy={tmp_path / 'mine.yaml'}")
    said = " ".join(result.stdout.str().split())
    assert "survives_bfloat16 is not judged: the edit did not take, so there is nothing to keep" in said
    assert "efficacy is not judged: policy mine has no such limit" in said


def test_a_single_edit_is_looked_at_live_and_computed_once(run, pytester, tmp_path):
    nudge = tmp_path / "nudge.py"
    nudge.write_text(nudge.read_text() + COUNTED)
    text = """
def test_it_stays(judged):
    judged("perplexity")

def test_it_is_live(edited, case):
    assert edited.changed() == edited.applied[0].parameters
    assert edited.applied[0].request_ids == (case.request.id,)
"""
    run(text, "-k", "hard", editors=("Counted",)).assert_outcomes(passed=4 + BLOCK + RUN)
    assert sorted((tmp_path / "log").read_text().split()) == ["hard-0", "hard-1"]


COUNTED = """

class Counted(Nudge):
    def edit(self, requests, carry=None):
        from pathlib import Path
        with (Path(__file__).parent / "log").open("a") as log:
            log.write(requests[0].id + "\\n")
        return super().edit(requests)
"""


@pytest.mark.parametrize(
    "text",
    [
        "import unittest\n\nclass TestMine(unittest.TestCase):\n"
        "    @pytest.fixture(autouse=True)\n    def ask(self, judged):\n        self.judged = judged\n\n"
        "    def test_mine(self):\n        self.judged('perplexity')\n",
        "def test_mine(request):\n    request.getfixturevalue('case')\n",
    ],
)
def test_what_pytest_cannot_ask_for_every_case_is_told_so(run, text):
    result = run(text)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*the fixture 'case' makes one test into several*Name the fixture*"])
    assert "AttributeError" not in result.stdout.str()
