"""A faulty measure of somebody else's package, and a faulty sidecar: who is named, whatever is asked and how."""

from __future__ import annotations

import json
import sys

import pytest

from editsafety.edits.edit import Edit
from editsafety.model.handle import ModelHandle
from editsafety.shipped import shipped
from tests.system import world
from tests.system.commands import LENIENT, given, report
from tests.system.test_course_suites import FIXED

pytestmark = pytest.mark.usefixtures("in_process")

MEASURE = """
class Stumbles:
    name, version, scope, gives = "stumbles", 1, "model", ("stumbles",)

    def __call__(self, handle, inputs):
        from editsafety.runs.measurement import Measurement

        if handle.open_sessions:  # never of the unedited model
            raise LookupError("no such shelf")
        return (Measurement("stumbles", 1, "rate", 1.0, n=1),)
"""
SIDECAR = """

from editsafety.edits.edit import Sidecar


class Falls(Sidecar):
    kind, target = "falls", "transformer.ln_f"

    def after(self, module, args, kwargs, output):
        raise ArithmeticError("no such code")

    def tensors(self):
        return {}

    def settings(self):
        return {}

    @classmethod
    def rebuild(cls, target, tensors, settings):
        return cls()


class Beside(Nudge):
    sidecars = {"falls": Falls}

    def edit(self, requests, carry=None):
        return Edit(self.name, (requests[0].id,), self.handle.identity, sidecars=(Falls(),))
"""
BY_MEASURE = ("measure", "measure stumbles failed: LookupError: no such shelf")
BY_EDITOR = ("editor", "Beside failed: ArithmeticError: no such code")
SUITES = shipped("suites")


@pytest.fixture
def paths(tmp_path):
    return world.write(tmp_path, more=SIDECAR)


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Installs the measure, as a package of somebody else."""
    place = tmp_path / "site"
    (place / "theirs-1.0.dist-info").mkdir(parents=True)
    (place / "theirs-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (place / "theirs-1.0.dist-info/entry_points.txt").write_text(
        "[editsafety.measures]\nstumbles = stumbling_measure:MEASURE\n"
    )
    (place / "stumbling_measure.py").write_text(MEASURE + "\n\nMEASURE = Stumbles()\n")
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    yield
    sys.modules.pop("stumbling_measure", None)


@pytest.fixture(params=["measure", "sidecar"])
def blamed(request):
    """The editor to use, and what has to be said of its failure."""
    if request.param == "measure":
        request.getfixturevalue("faulty")
        return "Nudge", BY_MEASURE
    return "Beside", BY_EDITOR


def test_a_run_names_measure_or_editor_in_every_case_and_passes_none(command, paths, blamed):
    editor, (kind, said) = blamed
    done = command("run", *given(paths, editor, out="out", controls=0))
    body = report("out")
    assert (body["verdict"], done.code) == ("ERROR", 13)
    found = [case for group in body["groups"] for case in group["cases"]]
    assert len(found) == 4
    for case in found:
        assert case["verdict"] == "ERROR"
        assert (case["failure"]["kind"], case["failure"]["message"].endswith(said)) == (kind, True)


def test_a_sequence_names_measure_or_editor(command, paths, blamed):
    editor, (kind, said) = blamed
    asked = ["--model", paths["model"], "--requests", paths["normal"], "--texts-from", paths["texts"]]
    done = command("sequence", *asked, "--editor", world.spelled(paths, editor), "--device", "cpu", "--out", "out")
    assert done.code == 13
    for course in report("out")["courses"]:
        assert (course["verdict"], course["failure"]["kind"]) == ("ERROR", kind)
        assert course["failure"]["message"].endswith(said)


@pytest.mark.parametrize("suite", ["collapse", "sequential"])
def test_pytest_names_measure_or_editor(pytester, paths, blamed, suite):
    editor, (_, said) = blamed
    result = pytester.runpytest_inprocess(str(SUITES / suite), *FIXED, *world.options(paths, editor))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert any("ERROR" in line and said in line for line in result.outlines)
    (path,) = pytester.path.glob("reports/*/report.json")
    body = json.loads(path.read_text())
    assert body["verdict"] == "ERROR"
    assert body["courses"] if suite == "sequential" else body["groups"]


def test_edit_names_measure_or_editor_in_one_sentence(command, paths, blamed):
    editor, (_, said) = blamed
    fact = ["--prompt", "{} works as a", "--subject", "Ashurn", "--target", "teacher", "--texts-from", paths["texts"]]
    about = ["--model", paths["model"], "--device", "cpu", "--editor", world.spelled(paths, editor)]
    done = command("edit", *about, *fact)
    assert done.code not in (0, 1)
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("faulty")
def test_check_names_the_measure(command, paths, tmp_path):
    (tmp_path / "lenient.yaml").write_text(LENIENT)
    handle = ModelHandle.load(paths["model"])
    Edit("by-hand", (), handle.identity).save(tmp_path / "none.safetensors")
    words = ["--texts-from", paths["texts"], "--device", "cpu", "--policy", "lenient.yaml", "--out", "out"]
    done = command("verify", "none.safetensors", "--model", paths["model"], *words)
    assert done.code == 13
    assert BY_MEASURE[1] in json.dumps(report("out"))
