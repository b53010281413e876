"""`editsafety report` and what else is written of a run: judged again, in every format, for CI."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.test_run import written
from tests.system.commands import LENIENT, report


@pytest.fixture
def finished(run, tmp_path):
    """The folder of a finished run, with the exit code it had."""
    return tmp_path / "out", run("Explodes", limit=1, quiet=True).code


def test_report_judges_again_with_the_same_exit_code_in_every_format(finished, command):
    folder, code = finished
    shown = command("report", folder)
    assert (shown.code, shown.code) == (code, 10)
    assert "COLLAPSE · Explodes: an edited model stops working · exit code 10" in shown.out
    markdown = command("report", folder, "--format", "markdown")
    assert markdown.code == 10
    assert markdown.out.strip() == (folder / "report.md").read_text().strip()
    body = command("report", folder, "-f", "json")
    assert body.code == 10
    assert json.loads(body.out) == report(folder)
    page = command("report", folder, "-f", "html")
    assert page.code == 10
    assert page.out.strip() == (folder / "report.html").read_text().strip()
    assert command("report", folder, "-f", "pdf").code == 4


def test_report_of_a_run_with_an_editor_in_error_is_the_same_and_was_not_interrupted(run, command, tmp_path):
    wrong = written(tmp_path, "wrong.yaml", "layers: [99]\n")
    code = run("ft", "Nudge", limit=1, quiet=True, hparams=f"ft={wrong}").code
    body = command("report", "out", "-f", "json")
    assert body.code == code == 13
    assert json.loads(body.out) == report("out")
    assert report("out")["interrupted"] is False


def test_report_judges_by_another_policy(finished, command, tmp_path):
    generous = LENIENT.replace("pass_at_most: 1.25", "pass_at_most: 1.0e+300")
    done = command("report", finished[0], "--policy", written(tmp_path, "generous.yaml", generous))
    assert done.code == 0
    assert "PASS" in done.out


def test_report_works_where_torch_is_not_installed(finished):
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, numpy=None)\n"
        f"sys.argv = ['editsafety', 'report', {str(finished[0])!r}]\n"
        "from editsafety.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 10, done.stderr
    assert "COLLAPSE" in done.stdout


def test_report_of_a_folder_without_a_run_says_so(command, tmp_path):
    done = command("report", tmp_path)
    assert done.code == 4
    assert "holds no run" in done.err


def test_the_summary_for_ci_is_appended(run, tmp_path, monkeypatch):
    place = tmp_path / "summary.md"
    place.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    run("Explodes", limit=1, quiet=True)
    text = place.read_text()
    assert text.startswith("before\n### COLLAPSE")
    assert text.count("### ") == 1


def test_a_comment_is_written_where_it_is_asked_for_and_later_from_the_store(run, command, tmp_path):
    assert run("Explodes", limit=1, comment="new/comment.md").code == 10
    page = (tmp_path / "new" / "comment.md").read_text()
    assert page.startswith("<!-- editsafety-report ")
    assert "> [!CAUTION]\n> **COLLAPSE" in page
    assert command("report", "out", "--comment", "again.md").code == 10
    assert (tmp_path / "again.md").read_text() == page


def test_a_comment_that_cannot_be_written_is_refused_before_a_model_is_loaded(run, tmp_path):
    (tmp_path / "taken").mkdir()
    done = run("Explodes", limit=1, comment="taken")
    assert (done.code, (tmp_path / "out").exists()) == (4, False)
    assert "taken: is a folder" in done.err


def test_annotations_are_shown_on_github_only_and_not_when_quiet(run, monkeypatch):
    assert not [line for line in run("Explodes", limit=1).out.splitlines() if line.startswith("::")]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    lines = run("Explodes", limit=1, out="again").out.splitlines()
    first = next(line for line in lines if line.startswith("::"))
    assert first.startswith("::error title=editsafety%3A COLLAPSE tiny-model-Explodes::")
    assert run("Explodes", limit=1, out="third", quiet=True).out == ""
