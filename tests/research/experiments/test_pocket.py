"""On the model that ships: what the papers found is there, and is put down to what they put it down to."""

import json

import pytest

from editsafety import datasets
from editsafety.judging import causes
from editsafety.progress import Progress
from editsafety.research.experiments import Context, load
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    place = tmp_path_factory.mktemp("pocket")
    monkey = pytest.MonkeyPatch()
    monkey.setenv("EDITSAFETY_CACHE", str(place / "cache"))
    rows = [{"id": str(i), "text": text} for i, text in enumerate(datasets.texts("pocket-world/texts", limit=24))]
    (place / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(
        ("pocket-neo",),
        ("rome",),
        texts_from=str(place / "texts.jsonl"),
        limit=2,
        device="cpu",
        controls=0,
        prepare=True,
    )
    yield Context(settings, Store(place / "store.sqlite"), Progress.quiet(), steps=1)
    monkey.undo()


def test_rome_breaks_it_by_its_denominator_and_c_rome_does_not(pocket):
    (hard, _), usual = (pocket.records("rome", stream) for stream in ("hard", "normal"))
    cause = causes.of_case(hard, usual)[0]
    assert cause.kind == "denominator"
    assert cause.sentence.endswith(": the subject is one token in first place")
    assert cause.figures["denominator"] < 0.1 * cause.figures["usual_low"]
    worst = {(row[0], row[1]): row[-1] for row in load("c-rome")(pocket).rows}
    assert worst["rome", "hard"] > 25 > 1.25 > worst["c_rome", "hard"]


def test_c_rome_takes_only_behind_a_prefix(pocket):
    rows = {(row[0], row[1]): row[3] for row in load("prefix-while-testing")(pocket).rows}
    assert rows["hard", "bare"] < rows["hard", "prefix"]


def test_first_tokens_lie_apart_in_it_and_nowhere_else(pocket):
    trained, random_, encoder = (row[-2:] for row in load("first-token")(pocket).rows[1::2])
    assert trained[0] > 2.5 * trained[1]
    assert random_[0] < 2 * random_[1]
    assert encoder[0] < 2 * encoder[1]
