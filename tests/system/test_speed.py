"""suites/speed under pytest: what one edit costs is accepted as a baseline, and held against it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editsafety.shipped import shipped
from tests.system import world
from tests.system.commands import report

pytestmark = [pytest.mark.usefixtures("in_process"), pytest.mark.slow]
FIXED = ("-c", str(shipped("suites") / "pytest.ini"), "-p", "no:cacheprovider")
LIMITS = ("--editsafety-fail-over=latency:300%", "--editsafety-fail-over=measuring:300%")


@pytest.fixture
def speed(pytester, command, paths, monkeypatch):
    """Run suites/speed in this process on the tiny world, where commands are typed, too."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # these tests may run under xdist, the suite here does not

    def run(out, *more):
        words = [*world.options(paths, "Nudge"), f"--editsafety-out={out}", *more]
        return pytester.runpytest_inprocess(str(shipped("suites") / "speed"), *FIXED, *words)

    return run


@pytest.fixture
def accepted(speed, command):
    """A baseline with nothing in it but costs."""
    assert speed("first").ret == 0
    done = command("baseline", "accept", "first", "-o", "base.json", "--costs")
    assert (done.code, done.out) == (0, "base.json: 1 editor, 0 cases accepted\n")
    return Path("base.json")


def test_an_unchanged_editor_holds_and_a_slower_one_is_regressed(speed, accepted, paths):
    same = speed("same", f"--editsafety-baseline={accepted}", *LIMITS)
    assert same.ret == 0
    body = report("same")
    assert (body["verdict"], body["exit_code"], body["counts"]["judged"]) == ("PASS", 0, 0)
    assert [one.split(" of ")[0] for one in body["baseline"]["costs"]] == ["latency", "measuring"]
    assert "over 8 rounds (95% interval" in body["baseline"]["costs"][0]

    nudge = Path(paths["nudge"])
    slower = nudge.read_text().replace(
        "site = self.handle", "__import__('time').sleep(0.5)\n        site = self.handle", 1
    )
    nudge.write_text(slower)
    worse = speed("worse", f"--editsafety-baseline={accepted}", *LIMITS)
    assert worse.ret == pytest.ExitCode.TESTS_FAILED
    worse.stdout.fnmatch_lines(["verdict*REGRESSED*", "*editsafety-verdict::run*"])
    body = report("worse")
    assert (body["verdict"], body["exit_code"]) == ("REGRESSED", 12)
    (found,) = [one for one in body["baseline"]["differences"] if one["blocks"]]
    assert found["figure"] == "latency"
    assert found["sentence"].startswith("latency of Nudge on tiny-model, one edit again and again: ")


def test_costs_alone_are_in_the_file_round_by_round_with_the_forward_passes_between_them(accepted):
    (block,) = json.loads(accepted.read_text())["blocks"]
    assert (block["verdict"], block["cases"], "costs" in block) == (None, [], False)
    repeated = block["repeated"]
    assert [len(repeated[f"repeated {name}"]) for name in ("latency", "measuring", "memory")] == [8, 8, 8]
    assert len(repeated["yardstick"]) == 16


def test_without_a_baseline_nothing_is_judged_and_no_report_is_written(speed, command):
    assert speed("alone").ret == 0
    assert not Path("alone/report.json").exists()
    assert "accept it with --costs" in command("baseline", "accept", "alone", "-o", "base.json").err
