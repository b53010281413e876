"""The verdict of the report is told as tests, and pytest's exit status is never better than it."""

from __future__ import annotations

import json
import signal
import xml.etree.ElementTree as ET

import pytest

from editsafety.runs.facts import Unexplained
from editsafety.runs.folders import STORE
from editsafety.runs.store import Store
from editsafety.shipped import shipped
from tests.system import world

SUITES = shipped("suites")
OK, FAILED, NONE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED
JUDGED = "def test_it_stays(judged):\n    judged('perplexity')\n"
OWN_LIMIT = """\
name: own
case:
  perplexity: {measure: me_ppl, figure: ratio, pass_at_most: 1.25, fails_as: COLLAPSE, why: as usual}
  tiny_update: {measure: delta_norm, figure: after, pass_at_most: 1.0e-9, fails_as: DAMAGED, why: hardly anything}
group: {}
"""


@pytest.fixture
def run(pytester, paths):
    """run(text, ...): a user's own test file on the tiny world, with a JUnit file beside it."""

    def runner(text, *args, editors=("Nudge",), **more):
        pytester.makepyfile(test_mine=f"import pytest\n\n{text}")
        given = ["-p", "no:cacheprovider", "--junit-xml=out.xml", "--editsafety-out=run"]
        return pytester.runpytest_inprocess(*world.options(paths, *editors), *given, *args, **more)

    return runner


def told(pytester):
    """What JUnit says of each part of the verdict: its failure, or ""; and the verdict in its properties."""
    found = {}
    for case in ET.parse(pytester.path / "out.xml").iter("testcase"):
        if case.get("classname") == "editsafety-verdict":
            (verdict,) = {p.get("value") for p in case.iter("property") if p.get("name") == "editsafety.verdict"}
            failure = case.find("failure")
            found[case.get("name")] = (verdict, "" if failure is None else failure.get("message"))
    return found


def verdict(pytester):
    return json.loads((pytester.path / "run" / "report.json").read_text())["verdict"]


def test_every_editor_and_the_run_itself_are_told(run, pytester):
    result = run(JUDGED, editors=("Nudge", "Explodes"))
    assert result.ret == FAILED
    found = told(pytester)
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "tiny-model-Nudge": "PASS",
        "tiny-model-Explodes": "COLLAPSE",
        "run": "PASS",
    }
    said = found["tiny-model-Explodes"][1]
    assert said.startswith("COLLAPSE tiny-model-Explodes: an edited model stops working")
    assert "COLLAPSE in 2 of 2 cases, worst tiny-model-Explodes-" in said
    result.stdout.fnmatch_lines(["FAILED editsafety-verdict::tiny-model-Explodes - COLLAPSE *"])


def test_a_limit_that_no_test_asks_for_makes_the_session_fail(run, pytester, tmp_path):
    policy = tmp_path / "own.yaml"
    policy.write_text(OWN_LIMIT)
    result = run(JUDGED, f"--editsafety-policy={policy}")
    assert (result.ret, verdict(pytester)) == (FAILED, "DAMAGED")
    result.assert_outcomes(passed=4 + 1, failed=1)


def test_where_all_of_our_tests_are_skipped_the_session_does_not_pass(run, pytester):
    text = "@pytest.mark.schedule('batch')\ndef test_it(judged):\n    judged('perplexity')\n"
    result = run(text, "--editsafety-size=2")
    result.assert_outcomes(skipped=2)
    assert (result.ret, verdict(pytester), told(pytester)) == (NONE, None, {})


def test_where_a_user_skips_all_of_our_tests_the_session_does_not_pass(run, pytester):
    assert run("@pytest.mark.skip\ndef test_it(case):\n    pass\n").ret == NONE
    assert run("def test_it(judged):\n    pytest.skip('not today')\n").ret != OK


def test_other_tests_of_a_session_are_none_of_our_business(run, pytester):
    assert run("def test_other():\n    pytest.skip('not today')\n").ret == OK
    assert run("def test_other():\n    pass\n").ret == OK
    assert not (pytester.path / "run").exists()


def test_a_session_that_selects_nothing_leaves_the_report_of_an_earlier_one_alone(run, pytester):
    assert run(JUDGED).ret == OK
    report = pytester.path / "run" / "report.json"
    before = report.stat().st_mtime_ns
    result = run(JUDGED, "-k", "nowhere")
    assert (result.ret, report.stat().st_mtime_ns, told(pytester)) == (NONE, before, {})
    assert "verdict   " not in result.stdout.str()


def test_an_interrupted_session_is_red_in_junit_as_well(run, pytester, monkeypatch):
    from editsafety.lab import single

    def stopped(*_):
        signal.raise_signal(signal.SIGINT)

    run(JUDGED, "-k", "hard-0")
    monkeypatch.setattr(single, "run", stopped)
    result = run(JUDGED, no_reraise_ctrlc=True)
    assert (result.ret, verdict(pytester)) == (pytest.ExitCode.INTERRUPTED, "INCOMPLETE")
    assert {name: verdict for name, (verdict, _) in told(pytester).items()} == {
        "tiny-model-Nudge": "INCOMPLETE",
        "run": "INCOMPLETE",
    }


def test_a_test_of_the_suites_that_fails_by_no_check_is_an_error_of_the_run(run, pytester):
    suite = (
        "@pytest.mark.editsafety\ndef test_suite(judged):\n    judged('perplexity')\n    raise OSError('disk full')\n"
    )
    result = run(suite, "-k", "hard")
    assert (result.ret, verdict(pytester)) == (FAILED, "ERROR")
    assert told(pytester)["run"][0] == "ERROR"
    assert "OSError: disk full" in told(pytester)["run"][1]
    store = Store(pytester.path / "run" / STORE)
    assert len(store.fact(Unexplained).tests) == 2
    again = run(suite.replace("raise", "# raise"), "-k", "hard")
    assert (again.ret, verdict(pytester), store.fact(Unexplained)) == (OK, "PASS", Unexplained())


def test_a_users_own_assertion_fails_the_session_and_not_the_report(run, pytester):
    result = run("def test_it(judged):\n    judged('perplexity')\n    assert False, 'mine'\n")
    assert (result.ret, verdict(pytester)) == (FAILED, "PASS")
    assert {verdict for verdict, _ in told(pytester).values()} == {"PASS"}


def test_controls_that_are_required_and_not_run_make_the_session_fail(run, pytester):
    result = run(JUDGED)
    assert result.ret == OK
    result.stdout.fnmatch_lines(["verdict * PASS * no control was run * exit code 0"])
    required = run(JUDGED, "--editsafety-require-controls", "--editsafety-out=required")
    assert required.ret == FAILED
    assert told(pytester)["run"] == (
        "ERROR",
        "ERROR run: the run itself cannot be relied on\n"
        "ERROR: no control was run on tiny-model, and controls are required (--require-controls)",
    )


def test_controls_that_are_required_and_run_are_enough(pytester, paths):
    options = [one for one in world.options(paths, "Nudge") if not one.startswith("--editsafety-controls")]
    where = [str(SUITES / name) for name in ("controls", "collapse")]
    fixed = ["-c", str(SUITES / "pytest.ini"), "-p", "no:cacheprovider", "--editsafety-require-controls"]
    result = pytester.runpytest_inprocess(*where, *fixed, *options)
    assert result.ret == OK
    assert "no control was run" not in result.stdout.str()


def test_the_order_of_tests_in_a_verbose_session_ends_with_the_verdict(run):
    lines = run(JUDGED, "-v", "-k", "hard-0").outlines
    shown = [line for line in lines if "PASSED" in line]
    assert [line.split()[0].rpartition("::")[2] for line in shown] == [
        "test_it_stays[tiny-model-Nudge-hard-0]",
        "tiny-model-Nudge",
        "run",
    ]
    assert "[100%]" in shown[-1]
