"""EditRequest: every bad row is refused with file, row and field; every good one comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from editsafety.datasets.request import Consequence, EditRequest, Neighbour
from editsafety.datasets.rows import tidied
from editsafety.errors import DataError

GOOD: dict[str, Any] = {"id": "a-1", "prompt": "{} works as a", "subject": "Ashurn", "target_new": "baker"}


def read(**changes: Any) -> EditRequest:
    return EditRequest.from_json({**GOOD, **changes}, "rows.jsonl:17")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "", "is empty"),
        ("id", 17, "is int, expected text"),
        ("prompt", "", "is empty"),
        ("prompt", "works as a", r"exactly one \{\} for the subject, found 0"),
        ("prompt", "{} and {}", "found 2"),
        ("prompt", "{{}} and {}", "found 2"),
        ("prompt", ["{}"], "is list"),
        ("subject", " \n", "is empty"),
        ("subject", None, "is NoneType"),
        ("subject", "A\x00B", "NUL"),
        ("subject", "\ud83d", "half a character"),
        ("target_new", "", "is empty"),
        ("target_new", "   ", "is empty"),
        ("target_new", 3.5, "is float"),
        ("target_true", 3, "is int, expected text"),
        ("target_true", "  ", "is empty"),
        ("relation", 5, "is int"),
        ("rephrasings", "one text", "must be a list of texts"),
        ("rephrasings", [1], "must be a list of texts"),
        ("rephrasings", ["fine", ""], "is empty"),
        ("rephrasings", None, "must be a list of texts"),
        ("neighbours", "one text", "must be a list, found str"),
        ("neighbours", [3], "needs texts or objects with 'prompt'"),
        ("neighbours", [{"answer": "x"}], "needs texts or objects"),
        ("neighbours", [{"prompt": 1}], "needs texts or objects"),
        ("neighbours", [{"prompt": "a", "answer": 1}], "an answer that is not text"),
        ("neighbours", [{"prompt": ""}], "is empty"),
        ("portability", "one text", "must be a list, found str"),
        ("portability", [{"prompt": "a", "answer": "b"}], "needs objects with 'kind', 'prompt' and 'answer'"),
        ("portability", [{"kind": "alias", "prompt": "a", "answer": 1}], "needs objects with 'kind'"),
        ("portability", [{"kind": "alias", "prompt": "a", "answer": " "}], "is empty"),
        ("portability", [{"kind": "one_hop", "prompt": "a", "answer": "b", "hop": "c"}], "perhaps 'hop' and 'hop_ans"),
        ("portability", [{"kind": "one_hop", "prompt": "a", "answer": "b", "hops": "c"}], "needs objects with 'kind'"),
        ("traget", "x", "unknown field 'traget'. Known fields: id, neighbours"),
    ],
)
def test_a_bad_field_is_named_with_file_and_row(field: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(**{field: value})
    assert str(caught.value).startswith("rows.jsonl:17: ")
    assert repr(field) in str(caught.value)


@pytest.mark.parametrize("field", sorted(GOOD))
def test_a_missing_field_is_named(field: str) -> None:
    row = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(DataError, match=f"rows.jsonl:3: field '{field}' is missing"):
        EditRequest.from_json(row, "rows.jsonl:3")


@pytest.mark.parametrize("row", [[], "text", 3, None])
def test_a_row_that_is_no_object_is_refused(row: Any) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:3: expected an object"):
        EditRequest.from_json(row, "rows.jsonl:3")


def test_without_a_source_the_request_itself_is_named() -> None:
    with pytest.raises(DataError, match="request 'a-1': field 'subject' is empty"):
        EditRequest("a-1", "{} is", "", "x")


def test_texts_of_every_script_and_length_are_taken_as_they_are() -> None:
    for subject in ("東京", "القاهرة", "🦊", "O'Neil {x}", "a\r\nb", "x" * 1_000_000):
        request = read(subject=subject)
        assert request.filled == subject + " works as a"


@pytest.mark.parametrize(
    ("prompt", "subject", "filled"),
    [
        ("{} plays the", "Elsa Lund ", "Elsa Lund plays the"),  # the template has its own space
        ("{} plays the", "\tElsa Lund\n", "Elsa Lund plays the"),
        ("The capital of {} is", " France ", "The capital of France is"),
        ("The capital of{}is", " France ", "The capital of France is"),  # cut out of a prompt with its spaces
        ("The capital of {}is", "France ", "The capital of France is"),
        ("Where is {}", "France ", "Where is France"),
        ("{}'s mother tongue is", "Elsa ", "Elsa's mother tongue is"),
        ('He wrote "{}", then', " Elsa ", 'He wrote "Elsa", then'),
        ("{}(born 1902) was", "Elsa ", "Elsa (born 1902) was"),
        ("{}\nworks as", "Elsa\u00a0", "Elsa\nworks as"),
        ("The song of{}", "\u3000Elsa", "The song of\u3000Elsa"),
    ],
)
def test_white_space_around_a_subject_is_never_part_of_it(prompt: str, subject: str, filled: str) -> None:
    request = read(prompt=prompt, subject=subject)
    assert request.subject == subject.strip()
    assert request.filled == filled


@pytest.mark.parametrize("prompt", ["Q: who is {}?\nA:\n", " {} is ", "<|user|> {} <|end|>\n\n", "\n{}\t"])
def test_white_space_at_the_ends_of_a_prompt_is_kept(prompt: str) -> None:
    request = read(prompt=prompt, rephrasings=[prompt], neighbours=[prompt])
    assert request.prompt == request.rephrasings[0] == request.neighbours[0].prompt == prompt


def test_braces_in_a_subject_are_text() -> None:
    assert read(prompt="The file {} is", subject="{name}").filled == "The file {name} is"
    assert read(prompt="100% of {} is", subject="%s").filled == "100% of %s is"


def test_whether_the_subject_comes_first_is_read_off_the_prompt() -> None:
    assert read().subject_first
    assert not read(prompt="Today {} works as a").subject_first


@pytest.mark.parametrize(
    ("id", "slug"),
    [
        ("case-1", "case-1"),
        ("a/b c", "a-b-c"),
        ("[x]::y", "x-y"),
        ("東京", "request"),
        ("a.b_c", "a.b_c"),
        ("--", "request"),
    ],
)
def test_a_slug_is_fit_for_test_ids_and_file_names(id: str, slug: str) -> None:
    assert read(id=id).slug == slug


def test_a_request_survives_a_json_line() -> None:
    request = read(
        target_true="farmer", relation="occupation", rephrasings=["The work of Ashurn is"],
        neighbours=["Mirel works as a", {"prompt": "Toren works as a", "answer": "miner"}],
        portability=[{"kind": "one_hop", "prompt": "Ashurn works in a", "answer": "bakery"}],
    )  # fmt: skip
    assert request.as_json()["portability"] == ({"kind": "one_hop", "prompt": "Ashurn works in a", "answer": "bakery"},)
    again = EditRequest.from_json(json.loads(json.dumps(request.as_json())), "elsewhere:1")
    assert again == request
    assert again.digest() == request.digest()
    assert again.neighbours == (Neighbour("Mirel works as a"), Neighbour("Toren works as a", "miner"))
    assert again.portability == (Consequence("one_hop", "Ashurn works in a", "bakery"),)


def test_an_empty_true_target_is_none() -> None:
    assert read(target_true="") == read(target_true=None) == read()
    assert "target_true" not in read(target_true="").as_json()


def test_the_digest_changes_with_every_field_but_the_source() -> None:
    changes: list[dict[str, Any]] = [
        {"id": "b"}, {"prompt": "{} is a"}, {"subject": "B"}, {"target_new": "c"}, {"target_true": "d"},
        {"relation": "e"}, {"rephrasings": ["f"]}, {"neighbours": ["g"]},
        {"neighbours": [{"prompt": "g", "answer": "h"}]},
        {"portability": [{"kind": "alias", "prompt": "i", "answer": "j"}]},
        {"portability": [{"kind": "alias", "prompt": "i", "answer": "j", "hop": "k", "hop_answer": "l"}]},
    ]  # fmt: skip
    digests = {read(**change).digest() for change in changes}
    assert len(digests) == len(changes)
    assert read().digest() not in digests
    assert EditRequest.from_json(GOOD, "other:99").digest() == read().digest()


def test_requests_are_values() -> None:
    assert read() == EditRequest.from_json(GOOD, "other:99")
    assert len({read(), EditRequest.from_json(GOOD)}) == 1
    with pytest.raises(AttributeError):
        read().subject = "other"  # type: ignore[misc]


def test_a_tidy_request_is_taken_as_it_is_and_spaces_that_would_be_doubled_are_stripped_from_any_other() -> None:
    tidy = EditRequest(
        "a", "{} works as a", "Ashurn", "farmer", "baker", neighbours=(Neighbour("Elsa works as a", "smith"),),
        portability=(Consequence("one_hop", "Ashurn makes", "bread", "A baker makes", "bread"),),
    )  # fmt: skip
    assert tidied(tidy) is tidy
    (neighbour,), (consequence,) = tidy.neighbours, tidy.portability
    for change in (
        {"target_new": " farmer"},
        {"target_true": "baker\n"},
        {"neighbours": (neighbour, replace(neighbour, answer=" smith "))},
        {"portability": (replace(consequence, answer=" bread"),)},
        {"portability": (replace(consequence, hop_answer="bread "),)},
    ):
        untidy = replace(tidy, **change)  # type: ignore[arg-type]
        wanted = replace(tidy, neighbours=(neighbour,) * len(untidy.neighbours))
        assert untidy != wanted == tidied(untidy)
