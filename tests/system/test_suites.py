"""The shipped suites, as pytest collects and runs them: ids, selection, speed, controls, and pytest's own switches."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from editsafety.cli.run import stored
from editsafety.model.handle import ModelHandle
from editsafety.shipped import shipped
from tests import tiny
from tests.system import world
from tests.system.commands import FT, NO_COVARIANCE, ROOT

pytestmark = pytest.mark.usefixtures("in_process")

SUITES = shipped("suites")
ALL = ("controls", "collapse", "efficacy", "integrity")
FIXED = ("-c", str(SUITES / "pytest.ini"), "-p", "no:cacheprovider")
VERDICTS = 2  # the parts of the verdict are items, too: that of the editor, and that of the run as a whole


@pytest.fixture
def suite(pytester, paths):
    """Run suites in this process on the tiny world."""

    def run(*args, suites=ALL, editors=("Nudge",)):
        where = [str(SUITES / name) for name in suites]
        return pytester.runpytest_inprocess(*where, *FIXED, *world.options(paths, *editors), *args)

    return run


@pytest.fixture
def loads(monkeypatch):
    """Every model that is loaded from here on."""
    seen, real = [], ModelHandle.load
    monkeypatch.setattr(ModelHandle, "load", lambda spec: seen.append(spec) or real(spec))
    return seen


def ids(result):
    return [line for line in result.outlines if "::" in line]


def test_collecting_several_models_and_editors_gives_the_same_sorted_ids_and_loads_nothing(
    suite, paths, tmp_path, loads
):
    other = tiny.folder(tmp_path / "other-model", "gpt_neo")
    words = ["--collect-only", "-q", f"--editsafety-model={other}"]
    first, second = (ids(suite(*words, editors=("Nudge", "noop"))) for _ in range(2))
    assert first == second
    assert len(first) == len(set(first))
    cases = [line for line in first if "test_perplexity_stays" in line]
    assert [line.rpartition("[")[2].rstrip("]") for line in cases] == [
        f"{model}-{editor}-{stream}-{i}"
        for model in ("tiny-model", "other-model")
        for editor in ("Nudge", "noop")
        for stream in ("hard", "normal")
        for i in range(2)
    ]
    assert loads == []


def test_every_suite_that_run_uses_is_there_and_no_other_but_speed():
    from editsafety.cli.run import MORE
    from editsafety.cli.run import SUITES as RUN

    found = {path.parent.name for path in SUITES.glob("*/test_*.py")}
    assert found == {*RUN, *MORE, "speed"}


@pytest.mark.parametrize(
    "switch",
    [("-p", "no:terminal"), ("-W", "error"), ("-n0",), ("-p", "no:xdist"), ("-x",), ("--import-mode=importlib",)],
    ids=" ".join,
)
def test_the_suites_pass_under(suite, switch):
    result = suite(*switch, suites=("collapse", "integrity"))
    assert result.ret == 0


def test_nothing_selected_is_no_pass(suite, loads):
    assert suite("-k", "no-such-case").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert loads == []


def test_a_sweep_judges_what_the_suites_ask_for(paths, pytester):
    from editsafety.cli.sweep import asked_by_suites
    from editsafety.judging.policy import Policy

    words = [one for one in world.options(paths, "Nudge") if not one.startswith("--editsafety-controls")]
    pytester.runpytest_inprocess(*(str(SUITES / name) for name in ALL), *FIXED, *words)
    (path,) = pytester.path.glob("reports/*/report.json")
    asked = set(json.loads(path.read_text())["asked"]["checks"])
    assert {"restore", "order", "control", "efficacy", "perplexity"} <= asked
    default = Policy.read("default")
    assert set(asked_by_suites(default, controls=True)) == asked
    assert set(asked_by_suites(default, controls=False)) == asked - {"control"}


@pytest.mark.parametrize("editor", ["Nudge", "noop"])
def test_the_controls_alone_end_as_they_come_out_whichever_editor_is_named(suite, paths, pytester, editor):
    words = [one for one in world.options(paths, editor) if not one.startswith("--editsafety-controls")]
    result = pytester.runpytest_inprocess(str(SUITES / "controls"), *FIXED, *words)
    assert "INCOMPLETE" not in result.stdout.str()
    result.stdout.fnmatch_lines(["verdict * PASS * every control came out as expected * exit code 0"])
    assert result.ret == pytest.ExitCode.OK
    (folder,) = pytester.path.glob("reports/*")
    assert stored(folder).exit_code == 0


def test_without_hard_cases_there_are_no_controls_and_the_report_says_so(suite, paths, pytester):
    words = [f"--editsafety-{name}={paths[name]}" for name in ("model", "normal")]
    words.append(f"--editsafety-texts-from={paths['texts']}")
    where = [str(SUITES / name) for name in ("controls", "collapse")]
    result = pytester.runpytest_inprocess(*where, *FIXED, *words, f"--editsafety-editor={paths['nudge']}:Nudge")
    result.stdout.fnmatch_lines(["*control*no control was run*"])


def test_marks_select_the_safety_checks_among_a_users_own_tests(pytester, paths):
    pytester.makepyfile("def test_something_else(): pass\ndef test_mine(judged):\n    judged('perplexity')\n")
    where = [str(SUITES / "collapse"), str(pytester.path)]
    result = pytester.runpytest_inprocess(*where, *FIXED, *world.options(paths, "Nudge"), "-m", "editsafety")
    result.assert_outcomes(passed=12 + VERDICTS, deselected=5)


def test_the_summary_for_ci_is_appended_and_only_once(suite, tmp_path, monkeypatch):
    place = tmp_path / "summary.md"
    place.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    suite(suites=("collapse",))
    assert place.read_text().startswith("before\n### PASS")
    suite(suites=("collapse",))
    assert place.read_text().count("### PASS") == 2


def test_speed_is_measured_with_its_memory(suite, pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # these tests may run under xdist, the suite here does not
    result = suite("--benchmark-json=speed.json", suites=("speed",))
    assert result.ret == 0
    found = {row["name"]: row for row in json.loads((pytester.path / "speed.json").read_text())["benchmarks"]}
    assert set(found) == {
        f"test_{what}[tiny-model-Nudge]" for what in ("one_edit", "apply_and_undo", "perplexity_of_an_edited_model")
    }
    assert all(row["stats"]["min"] > 0 for row in found.values())
    assert found["test_one_edit[tiny-model-Nudge]"]["extra_info"]["peak_bytes"] >= 0


@pytest.mark.slow
def test_speed_under_xdist_is_not_timed_and_says_why(suite):
    result = suite("-n", "1", "-rs", suites=("speed",))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*enchmark* xdist*"])


def hparams(folder):
    """Options that give every shipped editor numbers for the tiny model."""
    (folder / "rank-one.yaml").write_text(NO_COVARIANCE)
    (folder / "ft.yaml").write_text(FT)
    rank_one = [f"--editsafety-hparams={name}={folder / 'rank-one.yaml'}" for name in ("rome", "c_rome")]
    return [*rank_one, f"--editsafety-hparams=ft={folder / 'ft.yaml'}"]


def test_the_controls_run_with_the_users_hparams(suite, tmp_path):
    words = [*hparams(tmp_path), "--editsafety-controls=1", "-v"]
    result = suite(*words, suites=("controls",), editors=("rome", "ft"))
    text = result.stdout.str()
    for editor in ("rome", "c_rome", "noop"):
        assert f"test_the_control_editor_comes_out_as_it_must[tiny-model-{editor}]" in text
    # A random model has nothing to lose: ROME does not collapse it, and the control says that it shows nothing.
    result.stdout.fnmatch_lines(["*rome on 1 hard case of tiny-model: 1 PASS*, where COLLAPSE is what is known*"])
    assert "nothing shows that one would be seen" in " ".join(text.split())


@pytest.mark.thorough
def test_the_shipped_model_shows_that_the_controls_can_tell_collapse_from_health(tmp_path):
    """As a user would: pytest on the folder, in a process of its own."""
    assert (shipped("data") / "pocket-neo" / "model.safetensors").is_file()
    words = [
        "--editsafety-model=pocket-neo",
        "--editsafety-editor=c_rome",
        "--editsafety-limit=3",
        f"--editsafety-out={tmp_path}",
    ]
    where = [str(SUITES / name) for name in ("controls", "collapse")]
    command = [sys.executable, "-m", "pytest", *where, *FIXED, *words, "--editsafety-prepare", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    body = json.loads((tmp_path / "report.json").read_text())
    assert {c["editor"]: (c["expected"], c["behaved"]) for c in body["controls"]} == {
        "rome": ("COLLAPSE", True),
        "c_rome": ("PASS", True),
        "noop": ("NO-OP", True),
    }
    assert body["verdict"] == "PASS"
    assert max(case["ratio"] for group in body["groups"] for case in group["cases"]) < 1.1


def test_measuring_the_cost_alone_judges_nothing_and_writes_no_report(pytester, paths, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # these tests may run under xdist themselves
    options = [*world.options(paths, "Nudge"), "-c", str(SUITES / "pytest.ini"), "-p", "no:cacheprovider"]
    result = pytester.runpytest(str(SUITES / "speed"), *options, "-p", "no:xdist", "-k", "apply_and_undo")
    assert result.ret == 0
    assert "INCOMPLETE" not in result.stdout.str()
    assert not list(pytester.path.glob("reports/*/report.json"))
