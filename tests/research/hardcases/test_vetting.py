"""Every rule for requests is broken once, and says in which row and field; the shipped files break none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety import datasets
from editsafety.datasets.request import Consequence, EditRequest, Neighbour
from editsafety.errors import UnknownNameError
from editsafety.research.hardcases import vetting
from editsafety.shipped import shipped

PARIS = EditRequest(
    id="r1",
    prompt="{}'s capital city is",
    subject="France",
    target_new="Tokyo",
    target_true="Paris",
    relation="capital",
    rephrasings=("The capital of France is", "The government of France sits in"),
    neighbours=(Neighbour("The Louvre is in the city of", "Paris"), Neighbour("The Eiffel Tower is in", "Paris")),
    source="rows.jsonl:1",
)
TOKYO = EditRequest(
    id="r2",
    prompt="{} is governed from",
    subject="Japan",
    target_new="Paris",
    target_true="Tokyo",
    relation="capital",
    rephrasings=("The capital of Japan is", "The government of Japan sits in"),
    neighbours=(Neighbour("Ueno Park is in the city of", "Tokyo"), Neighbour("Shibuya is a part of", "Tokyo")),
    source="rows.jsonl:2",
)


def said(kind: vetting.Kind, *rows: EditRequest) -> list[str]:
    return [str(finding) for finding in vetting.vet(rows, kind)]


def broken(**changes: object) -> EditRequest:
    return replace(PARIS, **changes)  # type: ignore[arg-type]


def test_good_rows_have_no_findings() -> None:
    assert said("hardedit", PARIS, TOKYO) == []
    assert said("requests", PARIS, TOKYO) == []


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (broken(target_new="paris"), "target_new", "is the true target 'Paris'"),
        (broken(prompt="{}, not Japan with Tokyo, is governed from"), "prompt", "gives away the new target 'Tokyo'"),
        (broken(prompt="{} and its Paris is"), "prompt", "gives away the true target 'Paris'"),
        (broken(rephrasings=("France's capital city is", "x France")), "rephrasings", "holds the prompt itself"),
        (broken(rephrasings=("x France", "x France")), "rephrasings", "holds 'x France' twice"),
        (broken(rephrasings=("France, not TOKYO", "x France")), "rephrasings", "gives away the new target 'Tokyo'"),
        (broken(neighbours=(PARIS.neighbours[0],) * 2), "neighbours", "holds 'The Louvre is in the city of' twice"),
        (
            broken(neighbours=(Neighbour("France's capital city is", "Paris"), PARIS.neighbours[0])),
            "neighbours",
            "holds the prompt itself",
        ),
        (
            broken(portability=(Consequence("one_hop", "Tokyo, capital of France, lies in", "Tokyo"),)),
            "portability",
            "gives away its answer 'Tokyo'",
        ),
        (
            broken(portability=(Consequence("one_hop", "x", "Asia", "Tokyo, in Asia, lies in", "Asia"),)),
            "portability",
            "gives away what it rests on, 'Asia'",
        ),
    ],
)
def test_a_rule_for_any_file_is_broken(row: EditRequest, field: str, words: str) -> None:
    (first, *_) = said("requests", row, TOKYO)
    assert first.startswith(f"rows.jsonl:1: field {field!r} {words}")


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (broken(prompt="The capital city of {} is"), "prompt", "does not begin with the subject"),
        (broken(subject="Old France"), "subject", "is not a single word: 'Old France'"),
        (broken(relation=""), "relation", "is missing"),
        (broken(target_true=None), "target_true", "is missing"),
        (broken(target_new="cheese"), "target_new", "is of another type than the answers to 'capital': 'cheese'"),
        (broken(rephrasings=PARIS.rephrasings[:1]), "rephrasings", "has 1 entries, expected at least 2"),
        (broken(neighbours=PARIS.neighbours[:1]), "neighbours", "has 1 entries, expected at least 2"),
        (broken(rephrasings=("The capital of the Franks is", "x France")), "rephrasings", "does not name the subject"),
        (
            broken(neighbours=(Neighbour("A town in France is", "Paris"), PARIS.neighbours[0])),
            "neighbours",
            "names the subject 'France'",
        ),
        (
            broken(neighbours=(Neighbour("The Prado is in", "Madrid"), PARIS.neighbours[0])),
            "neighbours",
            "has another answer than the true target: 'Madrid'",
        ),
        (
            broken(neighbours=(Neighbour("The Paris Opera is in", "Paris"), PARIS.neighbours[0])),
            "neighbours",
            "gives away its answer 'Paris'",
        ),
    ],
)
def test_a_rule_of_hardedit_is_broken_and_is_no_rule_for_any_file(row: EditRequest, field: str, words: str) -> None:
    found = said("hardedit", row, TOKYO)
    assert any(one.startswith(f"rows.jsonl:1: field {field!r} {words}") for one in found), found
    assert said("requests", row, TOKYO) == []


def test_a_fact_that_is_there_already_is_named_with_its_place() -> None:
    same = replace(PARIS, id="r3", target_new="Rome", source="rows.jsonl:3")
    (found,) = said("requests", PARIS, TOKYO, same)
    assert found == "rows.jsonl:3: field 'prompt' says what rows.jsonl:1 does: \"France's capital city is\""
    other_words = replace(same, prompt="{} is governed from", target_new="Tokyo")
    assert said("requests", PARIS, TOKYO, other_words) == []
    (found,) = said("hardedit", PARIS, TOKYO, other_words)
    assert found == "rows.jsonl:3: field 'subject' says what rows.jsonl:1 does: 'France as to capital'"


def test_rows_beside_count_as_said_and_their_answers_as_known() -> None:
    rome = replace(TOKYO, id="x", subject="Italy", target_true="Rome", source="other.jsonl:1", neighbours=())
    assert [f.field for f in vetting.vet([broken(target_new="Rome")], "hardedit")] == ["target_new"]
    assert vetting.vet([broken(target_new="Rome")], "hardedit", beside=[rome]) == ()
    (found,) = vetting.vet([PARIS], "requests", beside=[replace(PARIS, source="other.jsonl:2")])
    assert "says what other.jsonl:2 does" in found.said


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("Rome's walls", "rome", True), ("Romeo", "Rome", False), ("the Rome", "Rome", True), ("C++ is", "C++", True),
        ("anything", "", False), ("on the (left) side", "(left)", True),
    ],
)  # fmt: skip
def test_words_are_held_as_words(text: str, words: str, expected: bool) -> None:
    assert vetting.holds(text, words) is expected


def test_a_row_that_cannot_be_read_is_a_finding_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PARIS.as_json()) + '\n{"id": "r2"}\n')
    found = [str(one) for one in vetting.vet_file(str(path), "hardedit")]
    alone = [str(one) for one in vetting.vet([PARIS], "hardedit")]
    assert "rows.jsonl:2: field 'prompt' is missing" in found[0]
    assert [one.partition(": ")[2] for one in found[1:]] == [one.partition(": ")[2] for one in alone]


def test_a_kind_that_is_not_known_gets_the_nearest() -> None:
    assert vetting.kind_of("hardedit") == "hardedit"
    with pytest.raises(UnknownNameError, match="did you mean 'hardedit'"):
        vetting.kind_of("hardedits")


def test_nothing_is_wrong_with_what_is_shipped_and_every_request_file_was_looked_at(tmp_path: Path) -> None:
    assert vetting.vet_folder(shipped("data")) == ()
    bad = replace(PARIS, subject="Old France", prompt="In {} it is")
    for name in ("hardedit.jsonl", "other.jsonl"):
        (tmp_path / name).write_text(json.dumps(bad.as_json()) + "\n")
    (tmp_path / "texts.jsonl").write_text('{"text": "In France it is Paris"}\n')
    found = vetting.vet_folder(tmp_path)
    assert {finding.where for finding in found} == {"hardedit.jsonl:1"}
    assert {"prompt", "subject"} <= {finding.field for finding in found}


def test_the_shipped_hardedit_is_as_large_and_as_varied_as_it_says() -> None:
    rows = datasets.requests("hardedit")
    about = json.loads((shipped("data") / "hardedit.about.json").read_text(encoding="utf-8"))
    assert len(rows) >= 450
    assert (about["relations"], about["subjects"]) == (len({r.relation for r in rows}), len({r.subject for r in rows}))
    assert [row.id for row in rows] == [f"hardedit-{i:04d}" for i in range(1, len(rows) + 1)]
    assert len({row.relation for row in rows[:30]}) >= 10, "a sequence that is cut early should have many relations"
