"""What holds for every experiment, whichever it is; and the figures of those that read them off records."""

import json
import math
import statistics

import pytest

from editsafety.edits.seal import Seal
from editsafety.errors import DataError, UnknownNameError, UsageError
from editsafety.research import experiments


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_gives_a_table_and_says_what_it_shows(name, shared):
    seal = Seal.of(shared.handle)
    one = experiments.load(name)
    assert one.name == name
    assert "arXiv" in one.paper
    found = one(shared)
    assert found.rows
    assert {len(row) for row in found.rows} == {len(found.headings)}
    assert found.sentence
    assert found.published
    body = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [list(row) for row in body["rows"]] == [list(found.headings)] * len(found.rows)
    assert seal.changed(Seal.of(shared.handle)) == ()


def test_what_is_a_command_of_its_own_is_named():
    with pytest.raises(UsageError, match="correlation is a command of its own: editsafety surrogate"):
        experiments.load("correlation")
    with pytest.raises(UnknownNameError, match="did you mean 'c-rome'"):
        experiments.load("crome")


def test_numbers_that_are_not_finite_are_written_by_name():
    found = experiments.Result("x", "m", ("a", "b"), ((math.inf, None),), "s")
    assert found.as_json()["rows"] == [{"a": "inf", "b": None}]


def test_maxima_are_those_of_the_records(shared):
    found = experiments.load("c-rome")(shared)
    rows = {(row[0], row[1]): row for row in found.rows}
    base = shared.bench.base["me_ppl"].value
    assert rows["unedited", ""][3] == base
    for editor in ("rome", "c_rome"):
        for stream in ("hard", "normal"):
            ppl = [record.after["me_ppl"].value for record in shared.records(editor, stream)]
            assert rows[editor, stream][2:] == (2, max(ppl), statistics.median(ppl), max(ppl) / base)


def test_denominators_are_averaged_by_size(shared):
    found = experiments.load("denominators")(shared)
    noted = [abs(record.notes["denominator"]) for record in shared.records("rome", "hard")]
    assert found.rows[0][3] == pytest.approx(sum(noted) / 2)
    assert found.rows[0][2] == pytest.approx(
        statistics.fmean(record.notes["numerator"] for record in shared.records("rome", "hard"))
    )


def test_the_pilot_lists_the_worst_first(make, shared):
    found = experiments.load("pilot")(make(worst=1))
    factors = [record.after["me_ppl"].value for record in shared.records("rome", "normal")]
    assert len(found.rows) == 1
    assert found.rows[0][3] == max(factors)
    assert found.sentence.startswith("of 2 single edits by rome the median leaves the perplexity at")


def test_a_broken_model_is_infinite_and_a_failed_editor_is_left_out():
    from tests.builders import failed, record

    assert experiments.perplexity(record("rome", "hard", 0, ratio=math.inf)) == math.inf
    assert experiments.perplexity(failed("rome", "hard", 0)) is None
    rows = [record("rome", "hard", 0, ratio=3.0), record("rome", "hard", 1, ratio=math.inf), failed("rome", "hard", 2)]
    assert experiments.ratios(rows) == [pytest.approx(3.0), math.inf]
    assert experiments.figures(rows, "delta_norm") == [110.0, 110.0]


def test_figures_that_are_no_numbers_do_not_count():
    from tests.builders import record

    rows = [record("rome", "hard", i, notes={"denominator": x}) for i, x in enumerate((-0.5, "nan", math.inf, "a"))]
    assert experiments.figures(rows, "denominator") == [0.5]


def test_nothing_to_measure_gives_no_number():
    assert (experiments.mean([]), experiments.median([]), experiments.over(1.0, 0.0), experiments.spell(None)) == (
        None, None, None, "-",
    )  # fmt: skip


def test_a_model_without_hard_requests_says_so(make):
    context = make()
    context.settings = context.settings.__class__(("random:gpt2",), ("rome",), normal=context.settings.normal)
    with pytest.raises(DataError, match=r"comes with no hard requests; give some: --hard LOADER:FILE"):
        context.requests("hard")
