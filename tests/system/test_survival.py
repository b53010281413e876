"""Kills, Ctrl-C, dying workers: what was finished is kept, what was not is never taken for a pass."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.store import Store
from tests.system import world
from tests.system.commands import cases, ended, given, kill, report, start, without_times

# Logs every edit, and does to its process what a file beside it says.
FATAL = '''

class Fatal(Nudge):
    """`kill` or `sleep` in this folder holds the id of the case at which to do so: once, `kill-always` every time."""

    def edit(self, requests, carry=None):
        import os, signal, time
        from pathlib import Path
        here, case = Path(__file__).parent, requests[0].id
        with (here / "log").open("a") as log:
            log.write(case + "\\n")
        for name in ("kill", "kill-always", "sleep"):
            order = here / name
            if order.exists() and order.read_text() == case:
                if name != "kill-always":
                    order.rename(here / f"{name}-done")
                if name == "sleep":
                    time.sleep(60)
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().edit(requests)
'''
NO_ORDER = {"k": "not order"}  # that check edits the first and the last case once more


@pytest.fixture
def here(paths, tmp_path):
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + FATAL)
    return tmp_path


def edited(here):
    """Ids of the edited cases so far, in order."""
    log = here / "log"
    return log.read_text().split() if log.exists() else []


def only_report(here):
    (path,) = here.glob("reports/*/report.json")
    return report(path.parent)


@pytest.mark.slow
def test_after_kill_9_the_same_command_runs_only_what_is_left_and_reports_the_same(here, paths, command):
    words = ["run", *given(paths, "Fatal", "noop", **NO_ORDER)]
    (here / "kill").write_text("normal-0")
    killed = ended(start(*words, cwd=here))
    assert killed.code == -signal.SIGKILL
    before = edited(here)
    assert before == ["hard-0", "hard-1", "normal-0"]
    assert not list(here.glob("reports/*/report.json"))
    (folder,) = here.glob("reports/*")
    assert command("report", folder).code == 13, "a killed run must not look whole"

    done = command(*words)
    assert sorted(edited(here)[len(before) :]) == ["normal-0", "normal-1"]
    again = only_report(here)
    undisturbed = command(*words, "--out", "undisturbed")
    assert done.code == undisturbed.code == 11
    assert without_times(again) == without_times(report("undisturbed"))


@pytest.mark.slow
def test_ctrl_c_writes_a_partial_report_exits_2_and_can_be_gone_on_with(here, paths, command):
    words = ["run", *given(paths, "Fatal", **NO_ORDER)]
    (here / "sleep").write_text("hard-1")
    done = kill(start(*words, cwd=here), when=(here / "sleep-done").exists, how=signal.SIGINT)
    assert done.code == 2
    assert "INCOMPLETE" in done.out
    assert "Traceback" not in done.err
    assert list(cases(only_report(here))) == ["tiny-model-Fatal-hard-0"]
    assert only_report(here)["interrupted"] is True
    assert command(*words).code == 11
    assert Counter(edited(here)) == {"hard-0": 1, "hard-1": 2, "normal-0": 1, "normal-1": 1}
    assert len(cases(only_report(here))) == 4


@pytest.mark.slow
def test_a_killed_worker_ends_in_incomplete_and_the_same_command_completes_it(here, paths, command):
    words = ["run", *given(paths, "Fatal", **NO_ORDER)]
    (here / "kill").write_text("hard-1")
    done = command(*words, "-n", 2)
    assert done.code == 13
    assert only_report(here)["verdict"] == "INCOMPLETE"
    first = edited(here)
    assert Counter(first)["hard-1"] == 2, "the killed case was not given to another worker"
    assert command(*words).code == 11
    assert edited(here) == first
    assert len(cases(only_report(here))) == 4


@pytest.mark.slow
def test_a_case_that_kills_every_worker_is_an_error_and_the_others_are_judged(here, paths, command):
    (here / "kill-always").write_text("hard-1")
    done = command("run", *given(paths, "Fatal", n=2, controls=0, k="perplexity_stays"))
    assert done.code == 13
    judged = {name: case["verdict"] for name, case in cases(only_report(here)).items()}
    assert judged == {
        "tiny-model-Fatal-hard-0": "PASS",
        "tiny-model-Fatal-hard-1": "ERROR",
        "tiny-model-Fatal-normal-0": "PASS",
        "tiny-model-Fatal-normal-1": "PASS",
    }
    assert "the process that ran this case died 2 times" in " ".join(done.out.split())


def test_a_case_whose_process_died_twice_is_not_tried_again_and_ctrl_c_is_no_death(paths, tmp_path, monkeypatch):
    from editsafety.lab import single

    plan, store = world.plan(paths, "Nudge"), Store(tmp_path / "store.sqlite")
    dies, stops, *_ = plan.cases
    lab = Lab(plan, store, Progress.quiet(), wanted=[stops])
    for _ in range(2):
        lab.store.start(lab.keys.of(dies))

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(single, "run", stopped)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                lab.record(stops)
    assert lab.record(stops).failure is None
    assert lab.record(dies).failure.kind == "died"


@pytest.mark.slow
def test_two_runs_may_share_a_folder_and_no_case_is_run_twice(here, paths):
    words = ["run", *given(paths, "Fatal", out="shared", **NO_ORDER)]
    both = [start(*words, cwd=here) for _ in range(2)]
    assert [ended(process).code for process in both] == [11, 11]
    assert Counter(edited(here)) == {"hard-0": 1, "hard-1": 1, "normal-0": 1, "normal-1": 1}
    assert len(cases(report(here / "shared"))) == 4


@pytest.mark.parametrize("place", ["/proc/no-run-can-be-here", "store"])
def test_where_nothing_can_be_kept_is_said_in_one_sentence_before_any_model_loads(here, paths, command, place):
    if place == "store":
        (here / place).mkdir()
        (here / place / "store.sqlite").write_text("not a database, but long enough to be looked at " * 9)
    done = command("run", *given(paths, "Fatal", out=place))
    assert done.code == 4
    assert place in done.err
    assert "Give another --out" in done.err.replace("give", "Give")
    assert len(done.err.strip().splitlines()) == 1
    assert not edited(here)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_sentence(here, paths, command):
    (here / "reports").mkdir(mode=0o555)
    done = command("run", *given(paths, "Fatal"))
    assert done.code == 4
    assert "cannot hold a run" in done.err
