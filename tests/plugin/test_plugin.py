"""The plugin as pytest users meet it: options, items, ids, selection, workers, reports."""

from __future__ import annotations

import json
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import xdist.plugin

from editsafety import plugin
from editsafety.lab import worker_count
from editsafety.shipped import shipped
from tests.system import world

SUITES = shipped("suites")
BLOCK = RUN = 1  # what the report says of the editor, and of the run, is told as a test, too
OWN = """
def test_it_stays(judged):
    judged("perplexity")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, paths: dict[str, str]):
    """Run pytest in this process on suites (by name) or files with some editors."""

    def runner(*args: str, editors: tuple[str, ...] = ("Nudge",), suites: tuple[str, ...] = ("collapse",), **more):
        where = [str(SUITES / suite) for suite in suites]
        fixed = ["-c", str(SUITES / "pytest.ini"), "-p", "no:cacheprovider"]
        return pytester.runpytest_inprocess(*where, *fixed, *world.options(paths, *editors), *args, **more)

    return runner


def reports(pytester: pytest.Pytester) -> list[Path]:
    return sorted((pytester.path / "reports").glob("*/report.json"))


def test_one_item_per_case_with_stable_ids_and_a_report(run, pytester):
    result = run("-v", suites=("collapse", "efficacy", "integrity"))
    result.stdout.fnmatch_lines(["*test_perplexity_stays_near_the_unedited_model?tiny-model-Nudge-hard-0? PASSED*"])
    (path,) = reports(pytester)
    body = json.loads(path.read_text())
    assert body["verdict"] == "INEFFECTIVE"  # a random nudge writes no fact
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (path.parent / "report.md").is_file()
    result.stdout.fnmatch_lines(["*INEFFECTIVE*"])


def test_only_what_was_asked_for_is_judged(run, pytester):
    assert run().ret == 0
    (path,) = reports(pytester)
    assert json.loads(path.read_text())["verdict"] == "PASS"


def test_a_collapse_fails_its_items_with_the_verdict_sentence(run, pytester):
    result = run(editors=("Explodes",))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*COLLAPSE tiny-model-Explodes-hard-0: perplexity *expected at most 1.25x*"])


def test_collect_only_loads_no_model_and_writes_nothing(run, pytester, monkeypatch):
    from editsafety.model import handle

    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(handle.ModelHandle, "load", never)
    result = run("--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_perplexity_stays_near_the_unedited_model?tiny-model-Nudge-normal-1?"])
    assert not (pytester.path / "reports").exists()


def test_k_selects_cases_and_only_those_are_run(run, pytester):
    result = run("-k", "tiny-model-Nudge-hard-0 and perplexity_stays")
    result.assert_outcomes(passed=1 + BLOCK + RUN, deselected=11)
    body = json.loads(reports(pytester)[0].read_text())
    assert [case["case"] for group in body["groups"] for case in group["cases"]] == ["tiny-model-Nudge-hard-0"]


@pytest.mark.slow
def test_two_workers_share_the_cases_and_agree_with_one(run, pytester):
    assert run("-n", "2", suites=("collapse", "integrity")).ret == 0
    (path,) = reports(pytester)
    two = json.loads(path.read_text())
    assert two["verdict"] == "PASS"
    assert sum(len(group["cases"]) for group in two["groups"]) == 4


def test_lf_runs_the_failed_items_again(pytester, paths):
    args = [str(SUITES / "collapse"), "-c", str(SUITES / "pytest.ini"), "--rootdir", str(pytester.path)]
    args += world.options(paths, "WritesNan")
    pytester.runpytest(*args, "-o", "cache_dir=cache").assert_outcomes(passed=8 + RUN, failed=4 + BLOCK)
    pytester.runpytest(*args, "-o", "cache_dir=cache", "--lf").assert_outcomes(failed=4 + BLOCK, passed=RUN)


def test_junit_properties_hold_the_verdict(run, pytester):
    run("--junit-xml=out.xml")
    names = {(p.get("name"), p.get("value")) for p in ET.parse(pytester.path / "out.xml").iter("property")}
    assert ("editsafety.perplexity", "PASS") in names


def test_a_users_own_test_file_gets_the_fixtures(pytester, paths):
    pytester.makepyfile(
        OWN
        + """
def test_the_edited_model_is_live(edited, case):
    assert edited.changed() == edited.applied[0].parameters
    assert case.id.startswith("tiny-model-Nudge-")

def test_the_handle_and_the_editor(handle, editor, result):
    assert editor.handle is handle
    assert result.step.restored
"""
    )
    result = pytester.runpytest(*world.options(paths, "Nudge"), "-p", "no:cacheprovider")
    result.assert_outcomes(passed=12 + BLOCK + RUN)


def test_without_a_model_the_message_says_what_to_add(pytester):
    pytester.makepyfile(OWN)
    result = pytester.runpytest("-p", "no:cacheprovider")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*no model was given: add --editsafety-model*"])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--editsafety-editor=romee", "no editor named 'romee'; did you mean 'rome'?"),
        ("--editsafety-policy=strictest", "no policy named 'strictest'"),
        ("--editsafety-limit=0", "expected at least 1"),
        ("--editsafety-hard=nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_a_wrong_option_is_a_usage_error_before_any_model_loads(pytester, paths, option, said):
    pytester.makepyfile(OWN)
    result = pytester.runpytest(*world.options(paths, "Nudge"), option, "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


def test_pytest_starts_without_torch(pytester):
    pytester.makepyfile("def test_nothing():\n    import sys\n    assert 'torch' not in sys.modules\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_an_interrupted_run_goes_on_where_it_was(run, pytester, paths, monkeypatch):
    from editsafety.lab import single

    real, seen = single.run, []

    def counted(bench, editor, case, *rest):
        seen.append(case.id)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C, and not what an editor raises by itself
        return real(bench, editor, case, *rest)

    monkeypatch.setattr(single, "run", counted)
    assert run(no_reraise_ctrlc=True).ret == pytest.ExitCode.INTERRUPTED
    (path,) = reports(pytester)
    assert json.loads(path.read_text())["verdict"] == "INCOMPLETE"
    assert run().ret == 0
    assert sorted(seen) == sorted([*{*seen}, seen[2]])  # only the interrupted case was run twice
    assert reports(pytester) == [path]
    assert json.loads(path.read_text())["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("visible", "count", "worker", "expected"),
    [
        (None, 2, "gw0", "0"),
        (None, 2, "gw3", "1"),
        (None, 0, "gw0", None),
        ("4,6", 2, "gw1", "6"),
        ("GPU-abc", 1, "gw5", "GPU-abc"),
        ("", 0, "gw0", ""),
        ("2,3", 2, "master", "2"),
    ],
)
def test_each_worker_gets_one_of_the_gpus_that_the_caller_made_visible(monkeypatch, visible, count, worker, expected):
    import os

    import torch

    from editsafety.plugin.workers import take_one_gpu

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    take_one_gpu(worker)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")  # so that it is put back afterwards


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, 2, ["0", "1"]), ("4, 6", 8, ["4", "6"]), ("GPU-abc", 1, ["GPU-abc"]), ("", 2, []), ("0,-1,1", 2, ["0"])],
)
def test_the_visible_gpus_are_those_that_the_caller_named(monkeypatch, visible, count, expected):
    import torch

    from editsafety.plugin.workers import visible_gpus

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("cuda = None\nhip = None\n", True),
        ("cuda = '12.8'\nhip = None\n", False),
        ("cuda = None\nhip = '6.4'\n", False),
        ("cuda = None\n", False),
        (None, False),
    ],
    ids=["cpu", "cuda", "rocm", "unknown", "no file"],
)
def test_a_torch_for_cpus_is_told_by_its_version_file_without_importing_it(tmp_path, monkeypatch, version, expected):
    import importlib.util
    from importlib.machinery import ModuleSpec

    from editsafety.plugin.workers import _is_torch_for_cpus

    found = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    if version is not None:
        (tmp_path / "version.py").write_text(version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert _is_torch_for_cpus() is expected


def test_what_the_version_file_says_is_what_torch_says():
    import torch

    from editsafety.plugin.workers import _is_torch_for_cpus

    assert _is_torch_for_cpus() == (torch.version.cuda is None and torch.version.hip is None)


def test_no_worker_of_a_machine_without_gpus_imports_torch_to_learn_that():
    import os
    import subprocess
    import sys

    import torch

    if torch.version.cuda is not None or torch.version.hip is not None:
        pytest.skip("this torch has to be asked for its GPUs")
    asked = (
        "import sys; from editsafety.plugin.workers import visible_gpus; print(visible_gpus(), 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=clean)
    assert done.stdout.strip() == "[] False"


@pytest.mark.parametrize(("cores", "workers"), [(3, 3), (1, 0)])
def test_auto_asks_for_workers_when_xdist_does_and_one_line_says_why(
    pytester, paths, monkeypatch, capsys, cores, workers
):
    """xdist asks before pytest is configured; a single worker would only be a second process."""
    monkeypatch.setattr(worker_count, "usable_cores", lambda: cores)
    monkeypatch.setattr("sys.__stderr__", None)
    config = pytester.parseconfig(*world.options(paths, "Nudge"), "-n", "auto")
    xdist.plugin.pytest_cmdline_main(config)
    assert config.option.numprocesses == workers
    assert config.option.tx == ["popen"] * workers
    said = capsys.readouterr().err
    assert said.startswith(f"-n auto: {cores} worker{'' if cores == 1 else 's'}: one for each of {cores} core")
    assert said.count("\n") == 1


def test_auto_says_nothing_when_quiet_and_leaves_other_runs_of_pytest_alone(pytester, paths, capsys):
    config = pytester.parseconfig(*world.options(paths, "Nudge"), "--editsafety-quiet")
    assert plugin.pytest_xdist_auto_num_workers(config) is not None
    assert plugin.pytest_xdist_auto_num_workers(pytester.parseconfig()) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("fixture", "name", "said"),
    [
        ("judged", "perplexitty", "has no case check 'perplexitty'. Known: "),
        ("judged_group", "efficasy", "has no group check 'efficasy'. Known: efficacy"),
    ],
)
def test_an_unknown_check_fails_with_the_known_ones(pytester, paths, fixture, name, said):
    pytester.makepyfile(f"def test_it({fixture}):\n    {fixture}({name!r})\n")
    result = pytester.runpytest(*world.options(paths, "Nudge"), "-p", "no:cacheprovider", "-k", "hard")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert said in result.stdout.str()


def test_options_may_stand_in_the_ini_file(pytester, paths):
    given = [option.removeprefix("--").partition("=") for option in world.options(paths, "Nudge")]
    ini = "\n".join(f"{name.replace('-', '_')} = {value}" for name, _, value in given)
    pytester.makeini(f"[pytest]\n{ini}\neditsafety_limit = 1\neditsafety_quiet = true\n")
    pytester.makepyfile(OWN)
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2 + BLOCK + RUN)
    assert "verdict" not in result.stdout.str()


def test_a_worker_that_is_lost_makes_the_run_incomplete_though_every_case_has_a_result(run, pytester, monkeypatch):
    """What it was judging is lost; the others' cases, and even its own, may have been computed since."""
    pytester.makepyfile(
        losing="""
        import os
        from types import SimpleNamespace
        from editsafety.plugin import pytest_testnodedown

        CONFIG = []

        def pytest_configure(config):
            CONFIG.append(config)

        def pytest_runtest_logfinish(nodeid):
            if nodeid.endswith("hard-1]"):
                pytest_testnodedown(SimpleNamespace(config=CONFIG[-1]), os.environ.get("LOST"))
        """
    )
    pytester.syspathinsert()
    assert run("-p", "losing").ret == 0
    monkeypatch.setenv("LOST", "crashed")
    result = run("-p", "losing")
    assert result.ret != 0
    body = json.loads(max(reports(pytester), key=lambda path: path.stat().st_mtime_ns).read_text())
    assert body["counts"]["missing"] == 0
    assert (body["verdict"], body["interrupted"]) == ("INCOMPLETE", True)
