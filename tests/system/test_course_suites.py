"""The suites over courses, as pytest collects and runs them on a tiny world, and what the report says of them."""

from __future__ import annotations

import json

import pytest

from editsafety.cli import run as cli
from editsafety.errors import UnknownNameError
from editsafety.runs.store import Store
from editsafety.shipped import shipped
from tests.system import world

pytestmark = pytest.mark.usefixtures("in_process")

SUITES = shipped("suites")
FIXED = ("-c", str(SUITES / "pytest.ini"), "-p", "no:cacheprovider", "--editsafety-every=2")
VERDICTS = 2  # the parts of the verdict are items, too: that of the editor, and that of the run as a whole


@pytest.fixture
def suite(pytester, paths):
    """Run suites in this process on the tiny world."""

    def run(*args, suites=("sequential",), editors=("Nudge",)):
        where = [str(SUITES / name) for name in suites]
        return pytester.runpytest_inprocess(*where, *FIXED, *world.options(paths, *editors), *args)

    return run


def report(pytester):
    (path,) = pytester.path.glob("reports/*/report.json")
    return json.loads(path.read_text())


def test_every_editor_has_a_course_per_stream_and_schedule_with_ids_that_can_be_selected(suite):
    result = suite("--collect-only", "-q", suites=("sequential", "batch", "abilities"))
    ids = {line.rpartition("[")[2].rstrip("]") for line in result.outlines if "::" in line}
    which = ("sequential", "batch", "batch-sequential", "0", "1")  # abilities are asked for of single edits as well
    assert ids == {f"tiny-model-Nudge-{stream}-{one}" for stream in ("hard", "normal") for one in which}


def test_the_abilities_of_a_world_are_asked_for_by_its_name(suite):
    result = suite("--collect-only", "-q", "--editsafety-probe", "english", suites=("abilities",))
    assert result.ret == 0
    refused = suite("--collect-only", "-q", "--editsafety-probe", "lambada", suites=("abilities",))
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*--probe lambada: the built-in one asks about pocket-world, which * knows nothing of*"]
    )


def test_small_edits_on_top_of_each_other_leave_the_model_working(suite, pytester):
    result = suite("-k", "perplexity or keep_their_size")
    result.assert_outcomes(passed=4 + VERDICTS)
    body = report(pytester)
    assert body["verdict"] == "PASS"
    assert [one["case"] for one in body["courses"]] == [f"tiny-model-Nudge-{s}-sequential" for s in ("hard", "normal")]
    assert [step["edits"] for step in body["courses"][0]["steps"]] == [2]
    assert "sequential, hard" in result.stdout.str()


def test_an_editor_that_cannot_batch_is_skipped_with_its_trait_and_does_not_make_the_run_incomplete(suite, pytester):
    result = suite("-rs", "-k", "batch or perplexity", "--editsafety-size=2", suites=("batch", "sequential"))
    assert "edits one fact at a time; a batch of 2 cannot be given to it" in result.stdout.str()
    body = report(pytester)
    assert "tiny-model-Nudge-hard-batch" not in body["courses_missing"]
    (folder,) = pytester.path.glob("reports/*")
    again = cli.stored(folder)
    assert (again.exit_code, again.missing_courses) == (body["exit_code"], ())


def test_a_collapse_on_the_way_fails_with_a_sentence_and_names_the_edit(suite, pytester):
    result = suite("-k", "perplexity and hard", editors=("Explodes",))
    result.assert_outcomes(failed=1 + 1, passed=1)
    result.stdout.fnmatch_lines(["*COLLAPSE tiny-model-Explodes-hard-sequential: perplexity*at worst, after 2 edits*"])
    (found,) = report(pytester)["courses"]
    assert found["breaking"]["edits"] in (1, 2)
    (folder,) = pytester.path.glob("reports/*")
    assert (folder / found["breaking"]["delta"]).is_file()


def test_an_editor_that_raises_half_way_is_an_error_of_its_course(suite, pytester):
    suite("-k", "perplexity and normal", editors=("Raises",)).assert_outcomes(failed=1 + 1, passed=1)
    (found,) = report(pytester)["courses"]
    assert found["verdict"] == "ERROR"
    assert "half way through" in found["failure"]["message"]


def test_a_finished_course_is_not_walked_again(suite, monkeypatch):
    suite("-k", "perplexity and hard", "--editsafety-out=kept").assert_outcomes(passed=1 + VERDICTS)

    from editsafety.lab import walk

    monkeypatch.setattr(walk, "compute", lambda *_: pytest.fail("an edit was computed again"))
    suite("-k", "perplexity and hard", "--editsafety-out=kept").assert_outcomes(passed=1 + VERDICTS)


def test_abilities_are_judged_where_they_were_asked_for_and_skipped_where_there_are_none(suite, pytester, tmp_path):
    suite("-rs", suites=("abilities",)).assert_outcomes(skipped=6)
    asked = [
        {"id": str(i), "prompt": "Mirel works as a", "options": ["baker", "judge"], "gold": i % 2} for i in range(4)
    ]
    path = tmp_path / "choosing.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = (f"--editsafety-probe={path}", "--editsafety-out=asked", "-k", "hard")
    suite(*words, suites=("abilities",)).assert_outcomes(passed=3 + VERDICTS)
    body = json.loads((pytester.path / "asked" / "report.json").read_text())
    assert body["courses"][0]["before"]["choosing"]["n"] == 4
    assert [case["before"]["choosing"]["n"] for group in body["groups"] for case in group["cases"]] == [4, 4]


def test_the_command_line_runs_named_suites_and_refuses_others(paths, tmp_path):
    words = cli.arguments(("sequential", "batch"))
    assert words[:2] == [str(SUITES / "sequential"), str(SUITES / "batch")]
    with pytest.raises(UnknownNameError, match="suite"):
        cli.arguments(("sequentail",))


def test_a_stored_run_of_courses_is_judged_again_without_a_model(suite, pytester):
    suite("-k", "hard", "--editsafety-out=again", editors=("Explodes",))
    assert cli.stored(pytester.path / "again").exit_code == 10


COUNTED = """

class Counted(Nudge):
    def edit(self, requests, carry=None):
        from pathlib import Path
        with (Path(__file__).parent / "log").open("a") as log:
            log.write(requests[0].id + "\\n")
        return super().edit(requests)
"""


def test_suites_of_one_request_edit_it_once(suite, pytester, paths, tmp_path):
    nudge = tmp_path / "nudge.py"
    nudge.write_text(nudge.read_text() + COUNTED)
    asked = tmp_path / "choosing.jsonl"
    asked.write_text('{"id": "0", "prompt": "Mirel works as a", "options": ["baker", "judge"], "gold": 0}\n')
    words = ("--editsafety-limit=1", f"--editsafety-probe={asked}", "--editsafety-singles=1", "-k", "hard")
    result = suite(*words, suites=("collapse", "abilities", "sequential"), editors=("Counted",))
    assert result.parseoutcomes()["passed"] >= 5
    (folder,) = pytester.path.glob("reports/*")
    single, course = sorted(Store(folder / "store.sqlite").records(), key=lambda record: record.is_course)
    assert single.step.edit_id == course.steps[0].edit_id
    assert (tmp_path / "log").read_text().split() == ["hard-0"]
    assert not (folder / "edits").exists()  # the run has come to its end
