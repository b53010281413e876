"""Kills, Ctrl-C, dying workers: what was finished is kept, what was not is never taken for a pass."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors.torch import load_file, save_file

from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs import folders
from editsafety.runs.store import Store
from tests import tiny
from tests.system import world
from tests.system.commands import cases, ended, given, kill, report, start, without_times

# Logs every edit, and does to its process what a file beside it says.
FATAL = '''

class Fatal(Nudge):
    """`kill` or `sleep` in this folder holds the id of the case at which to do so: once, `kill-always` every time."""

    def edit(self, requests, carry=None):
        import os, shutil, signal, time
        from pathlib import Path
        here, case = Path(__file__).parent, requests[0].id
        with (here / "log").open("a") as log:
            log.write(case + "\\n")
        (here / "process").write_text(str(os.getpid()))
        vanish = here / "vanish"
        if vanish.exists() and vanish.read_text() == case:
            shutil.rmtree(here / "run")
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
def supervised(monkeypatch):
    """Editors run in a process of their own, as they do for users."""
    monkeypatch.delenv("EDITSAFETY_IN_PROCESS")


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
@pytest.mark.usefixtures("supervised")
def test_after_kill_9_the_same_command_runs_only_what_is_left_and_reports_the_same(here, paths, command):
    words = ["run", *given(paths, "Fatal", "noop", **NO_ORDER)]
    (here / "sleep").write_text("normal-0")
    killed = kill(start(*words, cwd=here), when=(here / "sleep-done").exists)
    assert killed.code == -signal.SIGKILL
    wait_for_the_end_of(int((here / "process").read_text()))
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


def wait_for_the_end_of(process):
    """An editor's process ends with its run; it may take a moment to notice."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline, f"process {process} has outlived its run"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("supervised")
@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)], ids=["ctrl-c", "sigterm"]
)
def test_a_stopped_run_writes_a_partial_report_exits_2_and_can_be_gone_on_with(here, paths, command, how):
    words = ["run", *given(paths, "Fatal", **NO_ORDER)]
    (here / "sleep").write_text("hard-1")
    done = kill(start(*words, cwd=here), when=(here / "sleep-done").exists, how=how)
    assert done.code == 2
    assert "INCOMPLETE" in done.out
    assert "exit code 2" in done.out
    wait_for_the_end_of(int((here / "process").read_text()))
    assert "Traceback" not in done.err
    assert list(cases(only_report(here))) == ["tiny-model-Fatal-hard-0"]
    assert only_report(here)["interrupted"] is True
    assert only_report(here)["exit_code"] == 2
    assert command("report", *here.glob("reports/*")).code == 2
    assert command(*words).code == 11
    assert Counter(edited(here)) == {"hard-0": 1, "hard-1": 2, "normal-0": 1, "normal-1": 1}
    assert len(cases(only_report(here))) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("supervised")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.thorough)])
def test_a_case_whose_process_was_killed_once_is_run_again_and_the_report_is_the_same(here, paths, command, workers):
    words = ["run", *given(paths, "Fatal", **NO_ORDER), "-n", workers]
    (here / "kill").write_text("hard-1")
    assert command(*words, "--out", "killed").code == 11
    assert Counter(edited(here)) == {"hard-0": 1, "hard-1": 2, "normal-0": 1, "normal-1": 1}
    if workers == 0:
        assert command(*words, "--out", "undisturbed").code == 11
        assert without_times(report("killed")) == without_times(report("undisturbed"))


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
@pytest.mark.usefixtures("supervised")
def test_a_case_that_kills_every_process_is_an_error_and_the_others_are_judged(here, paths, command):
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
    assert "killed" in " ".join(done.out.split())
    assert Counter(edited(here))["hard-1"] == 3


def test_a_case_whose_process_died_three_times_is_not_tried_again_and_ctrl_c_is_no_death(paths, tmp_path, monkeypatch):
    from editsafety.lab import single

    plan, store = world.plan(paths, "Nudge"), Store(tmp_path / "store.sqlite")
    dies, stops, *_ = plan.cases
    lab = Lab(plan, store, Progress.quiet(), wanted=[stops])
    for _ in range(3):
        lab.store.start(lab.keys.of(dies))

    def stopped(*_):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(single, "run", stopped)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                lab.record(stops)
    assert lab.record(stops).failure is None
    assert lab.record(dies).failure.kind == "died"


def test_a_folder_that_a_run_is_at_work_in_is_refused_and_without_out_another_is_begun(here, paths, command):
    words = ["run", *given(paths, "Fatal", limit=1, controls=0, **NO_ORDER)]
    assert command(*words, "--out", "reports/mine").code == 11
    unfinished(here / "reports" / "mine")
    with FileLock(here / "reports" / "mine" / folders.LOCK):
        refused = command(*words, "--out", "reports/mine")
        assert refused.code == 4
        assert "reports/mine: another run is at work in it" in refused.err
        assert command(*words).code == 11
        assert len(list(here.glob("reports/*"))) == 2
    assert command(*words).code == 11
    assert len(list(here.glob("reports/*"))) == 2, "the unfinished run was not gone on with"


def unfinished(folder):
    """Make a run look as if it had been killed before it was told to be finished."""
    plan = json.loads((folder / folders.PLAN).read_text())
    (folder / folders.PLAN).write_text(json.dumps({**plan, "finished": False}))


def test_a_tokenizer_that_changed_since_a_run_was_begun_is_refused_by_name(here, paths, command):
    """Every prompt and every text are other tokens then, and the weights are the same."""
    words = ["run", *given(paths, "Fatal", limit=1, controls=0, **NO_ORDER)]
    assert command(*words, "--out", "first").code == 11
    unfinished(here / "first")
    tiny.tokenizer("bytes_bos").save_pretrained(here / "tiny-model")
    done = command(*words, "--out", "first")
    assert done.code == 4
    assert "tiny-model has another tokenizer (fingerprint" in done.err
    assert command(*words).code == 11


def test_weights_that_changed_since_a_run_was_begun_are_refused_by_name(here, paths, command):
    words = ["run", *given(paths, "Fatal", limit=1, controls=0, **NO_ORDER)]
    assert command(*words, "--out", "first").code == 11
    unfinished(here / "first")
    before = report("first")
    file = here / "tiny-model" / "model.safetensors"
    os.utime(file)  # another time and the same weights
    assert command(*words, "--out", "first").code == 11
    assert without_times(report("first")) == without_times(before)

    weights = load_file(file)
    name = next(name for name in weights if name.endswith("ln_f.weight"))
    save_file({**weights, name: weights[name] * 1.5}, file, {"format": "pt"})
    for workers in (0, 2):
        done = command(*words, "--out", "first", "-n", workers)
        assert done.code == 4
        assert "tiny-model has other weights (fingerprint" in done.err
        assert "give another --out" in done.err
    assert command(*words).code == 11
    (fresh,) = here.glob("reports/*")
    assert report(fresh)["models"] != before["models"]


def test_a_model_that_cannot_be_loaded_any_more_is_not_reported_from_an_earlier_session(here, paths, command):
    words = ["run", *given(paths, "Fatal", limit=1, controls=0, out="run", **NO_ORDER)]
    assert command(*words).code == 11
    (here / "tiny-model" / "model.safetensors").write_bytes(b"not weights")
    done = command(*words)
    assert done.code == 4
    assert "cannot load" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [0, 64])
def test_where_files_may_not_grow_that_is_said_and_the_same_command_completes_the_run(here, paths, command, kibibytes):
    words = ["run", *given(paths, "Fatal", limit=1, controls=0, out="run", **NO_ORDER)]

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (kibibytes * 1024, kibibytes * 1024))

    program = [sys.executable, "-m", "editsafety", *words]
    done = subprocess.run(program, cwd=here, capture_output=True, text=True, check=False, preexec_fn=little_room)
    assert done.returncode == 4, done.stderr
    assert "run" in done.stderr
    assert "Traceback" not in done.stderr
    assert command(*words).code == 11
    assert len(cases(report("run"))) == 2


@pytest.mark.slow
def test_a_folder_that_is_deleted_while_a_run_goes_on_is_said_and_is_no_pass(here, paths):
    (here / "vanish").write_text("normal-0")
    done = ended(start("run", *given(paths, "Fatal", out="run", **NO_ORDER), cwd=here))
    assert done.code == 4
    assert "run: the folder of this run is gone" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("place", ["/proc/no-run-can-be-here", "store"])
def test_where_nothing_can_be_kept_is_said_in_one_sentence_before_any_model_loads(here, paths, command, place):
    if place == "store":
        (here / place).mkdir()
        (here / place / "store.sqlite").write_text("not a database, but long enough to be looked at " * 9)
    done = command("run", *given(paths, "Fatal", out=place))
    assert done.code == 4
    assert place in done.err
    assert "Give another --out" in done.err.replace("give", "Give")
    assert "another run" not in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not edited(here)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_sentence(here, paths, command):
    (here / "reports").mkdir(mode=0o555)
    done = command("run", *given(paths, "Fatal"))
    assert done.code == 4
    assert "cannot hold a run" in done.err
