"""`editsafety baseline` and `run --baseline`: accepted, unchanged, worse, and not to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
    assert "other code" in (Path("worse") / "report.md").read_text()
    later = command("baseline", "diff", "worse", "base.json")
    assert later.code == 12
    assert later.out.splitlines()[-1].endswith("exit code 12")


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
    assert "Nudge" in done.out
