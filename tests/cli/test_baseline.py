"""`editsafety baseline` and `run --baseline`: accepted, unchanged, worse, and not to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editsafety.shipped import shipped
from tests.system import world
from tests.system.commands import LENIENT, Command, Done, given, report

POLICY = (
    LENIENT
    + """\
baseline:
  perplexity_ratio: {better: lower, absolute: 0.0005, each: true, why: of the test}
"""
)


@pytest.fixture
def run(command: Command, paths: dict[str, str], tmp_path: Path) -> Any:
    """`editsafety run` of one editor under a policy that lets everything pass, into the folder `out`."""
    (tmp_path / "policy.yaml").write_text(POLICY)

    def typed(out: str, **more: Any) -> Done:
        words = given(paths, "Nudge", out=out, policy="policy.yaml", controls=0, **more)
        return command("run", *words)

    return typed


@pytest.fixture
def accepted(run: Any, command: Command) -> str:
    """A baseline that was accepted."""
    assert run("out").code == 0
    done = command("baseline", "accept", "out", "-o", "base.json")
    assert (done.code, done.out) == (0, "base.json: 1 editor, 4 cases accepted\n")
    return "base.json"


def make_worse(paths: dict[str, str]) -> None:
    """The same editor with changes a thousand times as large."""
    file = Path(paths["nudge"])
    file.write_text(file.read_text().replace("SIZE = 0.0001", "SIZE = 0.1"))


def test_an_unchanged_editor_passes_and_a_worse_one_is_12_with_the_cases_named(run, accepted, paths, command):
    same = run("again", baseline=accepted)
    assert same.code == 0
    assert "no worse against base.json" in same.out
    make_worse(paths)
    worse = run("worse", baseline=accepted)
    assert worse.code == 12
    assert "REGRESSED" in worse.out
    assert "exit code 12" in worse.out
    body = report("worse")
    assert (body["verdict"], body["exit_code"], body["baseline"]["regressed"]) == ("REGRESSED", 12, True)
    blocking = [one for one in body["baseline"]["differences"] if one["blocks"]]
    assert "tiny-model-Nudge-hard-0" in {name for one in blocking for name in one["cases"]}
    assert "its code is not that of then" in (Path("worse") / "report.md").read_text()
    later = command("baseline", "diff", "worse", "base.json", "--comment", "comment.md")
    assert "### Against the baseline\n\n- REGRESSED: Nudge: " in Path("comment.md").read_text()
    assert later.code == 12
    assert later.out.splitlines()[-1].endswith("exit code 12")


@pytest.mark.thorough
def test_another_condition_is_refused_by_name_and_compared_when_it_is_allowed(run, accepted):
    other = run("other", baseline=accepted, batch_size=2)
    assert other.code == 13
    assert "batch" in other.out
    assert "not comparable with base.json" in other.out
    assert run("allowed", baseline=accepted, batch_size=2, allow="batch").code == 0


def test_what_cannot_be_a_baseline_is_refused_before_a_model_is_loaded(run, tmp_path):
    (tmp_path / "base.json").write_text("{}")
    done = run("out", baseline="base.json")
    assert done.code == 4
    assert "is no baseline" in done.err
    assert not (tmp_path / "out").exists()


def test_a_baseline_is_shown(accepted, command):
    done = command("baseline", "show", accepted)
    assert done.code == 0
    assert done.out.splitlines()[0].split() == [
        "editor", "model", "verdict", "cases", "weights", "dtype", "device", "editsafety",
    ]  # fmt: skip
    assert "Nudge" in done.out
    assert "…" not in done.out, "something is cut off"


SLOW = "import time\n"


@pytest.mark.thorough
def test_an_editor_that_became_slow_is_12_and_a_baseline_without_costs_is_refused(run, paths, command, tmp_path):
    """Twelve cases; the same edits, each of which waits for a while."""
    world.write(tmp_path, hard=6, normal=6)
    file = Path(paths["nudge"])
    file.write_text(SLOW + file.read_text().replace("site = ", "time.sleep(0.02)\n        site = "))
    assert run("out").code == 0
    assert command("baseline", "accept", "out", "-o", "plain.json").code == 0
    refused = run("refused", baseline="plain.json", fail_over="latency:50%")
    assert (refused.code, (tmp_path / "refused").exists()) == (4, False)
    assert "plain.json: holds no costs" in refused.err
    assert command("baseline", "accept", "out", "-o", "base.json", "--costs").code == 0
    same = run("same", baseline="base.json", fail_over="measuring:900%")
    assert same.code == 0, same.out
    file.write_text(file.read_text().replace("sleep(0.02)", "sleep(0.5)"))
    slow = run("slow", baseline="base.json", fail_over=["latency:50%", "absolute-latency:50%"])
    assert slow.code == 12, slow.out
    said = [one["sentence"] for one in report("slow")["baseline"]["differences"] if one["blocks"]]
    assert [one.split(" of ")[0] for one in said] == ["latency", "absolute-latency"]
    assert all("over 12 steps" in one for one in said)
    later = command("baseline", "diff", "slow", "base.json", "--fail-over", "latency:50%")
    assert later.code == 12
    assert "REGRESSED: Nudge: latency of Nudge on tiny-model, single edits: " in later.out


def test_a_limit_on_costs_without_a_baseline_is_refused_before_a_model_is_loaded(run, tmp_path):
    done = run("out", fail_over="latency:20%")
    assert (done.code, (tmp_path / "out").exists()) == (4, False)
    assert "needs what it is compared with: give --baseline" in done.err


def test_pytest_holds_a_session_against_a_baseline_as_well(accepted, paths, command, tmp_path, pytester):
    """`--editsafety-baseline`: the verdict is in its report, and the status of the session is 1."""
    make_worse(paths)
    base, out = tmp_path / accepted, tmp_path / "session"
    words = [*world.options(paths, "Nudge"), f"--editsafety-policy={tmp_path / 'policy.yaml'}"]
    result = pytester.runpytest_inprocess(
        str(shipped("suites") / "collapse"), *words, f"--editsafety-baseline={base}", f"--editsafety-out={out}"
    )
    assert result.ret == 1
    assert report(out)["verdict"] == "REGRESSED"
    result.stdout.fnmatch_lines(["FAILED *editsafety-verdict::run - REGRESSED *"])
