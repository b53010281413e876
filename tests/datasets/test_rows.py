"""Bad files and bad rows: every error says which file, which row, which field, and nothing is repaired in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from editsafety import datasets
from editsafety.errors import DataError
from tests.datasets.conftest import Write

FLAT: dict[str, Any] = {"prompt": "Ashurn works as a", "subject": "Ashurn", "target_new": "farmer"}
REWRITE: dict[str, Any] = {"prompt": "{} works as a", "subject": "Ashurn", "target_new": {"str": "farmer"}}
GOOD: dict[str, dict[str, Any]] = {
    "jsonl": {"id": "a", "prompt": "{} works as a", "subject": "Ashurn", "target_new": "farmer"},
    "counterfact": {"case_id": 1, **FLAT},
    "hardcf": {"case_id": 1, "requested_rewrite": REWRITE},
    "hardedit": {**FLAT, "ground_truth": "baker"},
    "zsre": {
        "subject": "Ashurn", "src": "What does Ashurn do?", "alt": "farm", "answers": ["bake"], "loc": "x",
        "loc_ans": "y",
    },
    "qaedit": {
        "id": 3, "source": "NQ", "prompt": "what is Ashurn", "subject": "Ashurn", "target": "farmer", "locality": [],
    },
    "wikibigedit": {"update": "Where is Ashurn?", "subject": "Ashurn", "ans": "here"},
    "easyedit": FLAT,
    "published": FLAT,
    "rome": REWRITE,
    "mquake": {"case_id": 1, "requested_rewrite": [REWRITE]},
    "fastedit": {"prompt": "{} works as a", "subject": "Ashurn", "target": "farmer", "queries": []},
    "wikibio": {"text": "About Ashurn.", "concept": "Ashurn", "labels": "A farmer."},
    "cknowedit": {"prompt": "请解释：Ashurn", "target_old": "baker", "target_new": "farmer"},
    "unke": {"id": 1, "question": "Ashurn", "answer": "A farmer.", "para_question": "Who is Ashurn?"},
    "ripple_edits": {
        "edit": {"prompt": "The name of the trade of Ashurn is farming.", "subject_id": "Q1", "target_id": "Q2"}
    },
}  # fmt: skip
TEXTS: dict[str, dict[str, Any]] = {"me_ppl": {"Corpus": "C4", "Text": " A text."}, "plain": {"text": "A text."}}
REQUEST_LOADERS = [name for name in datasets.loaders() if datasets.load(name).holds == "requests"]
IN_REWRITE = {
    "prompt": ("requested_rewrite", "prompt"), "subject": ("requested_rewrite", "subject"),
    "target": ("requested_rewrite", "target_new", "str"),
}  # fmt: skip
# Where a layout keeps prompt, subject and target; a part that is missing here is not given by its rows.
PLACES: dict[str, dict[str, tuple[str | int, ...]]] = {
    "hardcf": IN_REWRITE,
    "mquake": {part: (place[0], 0, *place[1:]) for part, place in IN_REWRITE.items()},
    "rome": {part: place[1:] for part, place in IN_REWRITE.items()},
    "zsre": {"prompt": ("src",), "subject": ("subject",), "target": ("alt",)},
    "qaedit": {"prompt": ("prompt",), "subject": ("subject",), "target": ("target",)},
    "fastedit": {"prompt": ("prompt",), "subject": ("subject",), "target": ("target",)},
    "wikibigedit": {"prompt": ("update",), "subject": ("subject",), "target": ("ans",)},
    "wikibio": {"prompt": ("text",), "subject": ("concept",), "target": ("labels",)},
    "cknowedit": {"prompt": ("prompt",), "target": ("target_new",)},
    "unke": {"prompt": ("question",), "target": ("answer",)},
    "ripple_edits": {"prompt": ("edit", "prompt")},
    "published": {},
}
FLAT_PLACES: dict[str, tuple[str | int, ...]] = {
    "prompt": ("prompt",), "subject": ("subject",), "target": ("target_new",),
}  # fmt: skip
PARTS = [(name, part) for name in REQUEST_LOADERS for part in PLACES.get(name, FLAT_PLACES)]


def refused(loader: str, path: Path) -> str:
    read = datasets.requests if datasets.load(loader).holds == "requests" else datasets.texts
    with pytest.raises(DataError) as error:
        read(f"{loader}:{path}")
    assert path.name in str(error.value)
    return str(error.value)


def altered(loader: str, part: str, value: Any, *, drop: bool = False) -> dict[str, Any]:
    """The good row with its prompt, subject or target replaced (or dropped), wherever that layout keeps it."""
    row: dict[str, Any] = json.loads(json.dumps(GOOD[loader]))
    *inside, last = PLACES.get(loader, FLAT_PLACES)[part]
    place: Any = row
    for step in inside:
        place = place[step]
    if drop:
        place.pop(last)
    else:
        place[last] = value
    return row


def field_of(loader: str, part: str) -> str:
    return str(PLACES.get(loader, FLAT_PLACES)[part][-1])


def test_every_loader_has_a_row_to_try_here() -> None:
    assert {*GOOD, *TEXTS} == set(datasets.loaders())


@pytest.mark.parametrize("loader", datasets.loaders())
def test_every_loader_says_what_it_holds_and_reads_a_good_row(loader: str, write: Write) -> None:
    if loader in TEXTS:
        assert datasets.texts(f"{loader}:{write(TEXTS[loader])}") in ((" A text.",), ("A text.",))
    else:
        (request,) = datasets.requests(f"{loader}:{write(GOOD[loader])}")
        assert request.subject == "Ashurn"
        assert request.prompt.count("{}") == 1
        assert request.filled.count("Ashurn") == 1
        assert request.source == "rows.jsonl:1"


@pytest.mark.parametrize("loader", datasets.loaders())
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b" \r\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"[]", "holds no rows"),
        (b"[1, 2]", "[0]: is int, expected an object"),
        (b'["text"]', "[0]: is str, expected an object"),
        (b"null\n", ":1: is NoneType, expected an object"),
        (b'[{"a": 1}, {"a"', "Is the file cut off?"),
        (b'{"a": 1}\n{"a": ', ":2: no whole JSON value"),
        (b'{"a": NaN}\n', ":1: holds NaN"),
        (b'{"a": "caf\xe9"}\n', ":1: not UTF-8 at byte 10 (0xe9)"),
        (b'\xef\xbb\xbf{"a": 1}\n{"b": "\xff"}', ":2: not UTF-8 at byte 19 (0xff)"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe" + '{"a": "x"}'.encode("utf-16-le") + b"\xd8", ":1: not UTF-16-LE at byte 22 (0xd8)"),
        (b'[{"a": 1,}]', ":1: no whole JSON value (column 10"),
        (b"[{'a': 1}]", "Correct it there, or save the data as JSON."),
        (b"<html>not data</html>", ":1: no whole JSON value"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(loader: str, data: bytes, says: str, write: Write) -> None:
    assert says in refused(loader, write(data=data))


@pytest.mark.parametrize("loader", datasets.loaders())
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_how_a_file_is_written(loader: str, encoding: str, write: Write) -> None:
    row = {**GOOD, **TEXTS}[loader]
    read = datasets.texts if loader in TEXTS else datasets.requests
    plain = read(f"{loader}:{write(row)}")
    assert read(f"{loader}:{write(name='marked.jsonl', data=(json.dumps(row) + chr(10)).encode(encoding))}") == plain


@pytest.mark.parametrize("loader", datasets.loaders())
def test_objects_may_be_spread_over_lines_one_behind_the_other(loader: str, write: Write) -> None:
    rows = [{**GOOD, **TEXTS}[loader], {**GOOD, **TEXTS}[loader], 7]
    path = write(data="\n".join(json.dumps(row, indent=2) for row in rows[:2]).encode())
    lines = len(json.dumps(rows[0], indent=2).split("\n"))
    if loader in TEXTS:
        assert len(datasets.texts(f"{loader}:{path}")) == 2
    else:
        found = datasets.read_requests(f"{loader}:{path}", skip_bad_rows=True)  # some have an id, which is then taken
        sources = [*(one.source for one in found.requests), *(line.partition(": ")[0] for line in found.left_out)]
        assert sources == ["rows.jsonl:1", f"rows.jsonl:{lines + 1}"]


def test_a_cut_off_list_names_the_line(write: Write) -> None:
    assert "rows.json:3: no whole JSON value" in refused(
        "counterfact", write(name="rows.json", data=b'[\n{"a": 1},\n{"b')
    )


@pytest.mark.parametrize("loader", datasets.loaders())
def test_a_path_that_leads_to_no_file_is_refused(loader: str, tmp_path: Path) -> None:
    assert "there is no such file" in refused(loader, tmp_path / "absent.jsonl")
    assert "is a folder" in refused(loader, tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(write: Write) -> None:
    path = write(GOOD["jsonl"])
    path.chmod(0)
    assert "cannot be read" in refused("jsonl", path)


@pytest.mark.parametrize(("loader", "part"), PARTS)
def test_a_missing_field_is_named_with_its_row(loader: str, part: str, write: Write) -> None:
    says = refused(loader, write(GOOD[loader], altered(loader, part, "", drop=True)))
    assert says.startswith("rows.jsonl:2: ")
    assert f"field {field_of(loader, part)!r} is missing" in says


@pytest.mark.parametrize(("loader", "part"), PARTS)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1.7, "is float, expected text"),
        (True, "is bool, expected text"),
        (["a"], "is list, expected text"),
        (None, "is NoneType, expected text"),
        ("", "is empty"),
        (" \t", "is empty"),
        ("a\x00b", "holds a NUL character"),
        ("\ud800", "half a character"),
    ],
)
def test_a_value_that_is_no_usable_text_is_refused(loader: str, part: str, value: Any, says: str, write: Write) -> None:
    if loader != "jsonl" and (part, value) == ("target", ["a"]):
        pytest.skip("of a list of new targets the first is taken in published layouts")
    message = refused(loader, write(GOOD[loader], altered(loader, part, value)))
    assert says in message
    assert repr(field_of(loader, part)) in message
    assert "rows.jsonl:2" in message


@pytest.mark.parametrize(("loader", "part"), [one for one in PARTS if one[0] != "jsonl" and one[1] == "target"])
def test_a_year_is_an_answer_with_and_without_quotes(loader: str, part: str, write: Write) -> None:
    def targets(value: Any) -> list[str]:
        return [one.target_new for one in datasets.requests(f"{loader}:{write(altered(loader, part, value))}")]

    assert targets(1984) == targets("1984") == targets(["1984", "1985"]) == ["1984"]


@pytest.mark.parametrize("loader", ["counterfact", "hardedit", "zsre", "qaedit", "wikibigedit", "easyedit", "wikibio"])
def test_a_filled_prompt_has_to_hold_its_subject(loader: str, write: Write) -> None:
    says = refused(loader, write(altered(loader, "subject", "Mirel")))
    assert f"rows.jsonl:1: field {field_of(loader, 'subject')!r} does not occur in" in says
    assert "'Mirel'" in says


@pytest.mark.parametrize(
    ("loader", "prompt", "said"),
    [
        ("jsonl", "Ashurn works as a", "exactly one {}"),
        ("jsonl", "{} and {} work as a", "exactly one {}"),
        ("jsonl", "{0} works as a", "exactly one {}"),
        ("hardcf", "{} and {} work as a", "exactly one {}"),
        ("hardcf", "{0} works as a", "'subject' does not occur in 'prompt'"),
    ],
)
def test_a_template_has_to_hold_exactly_one_slot(loader: str, prompt: str, said: str, write: Write) -> None:
    says = refused(loader, write(altered(loader, "prompt", prompt)))
    assert "rows.jsonl:1" in says
    assert said in says


@pytest.mark.parametrize("loader", REQUEST_LOADERS)
def test_an_id_that_occurs_twice_is_refused_naming_both_rows(loader: str, write: Write) -> None:
    row = GOOD[loader] if "id" in GOOD[loader] else {**GOOD[loader], "case_id": 1}
    says = refused(loader, write(row, {**row, "nothing": 1} if loader != "jsonl" else row))
    assert "rows.jsonl:2" in says
    assert "rows.jsonl:1" in says


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("rephrasings", "one text", "'rephrasings' must be a list of texts"),
        ("rephrasings", [1], "'rephrasings' must be a list of texts"),
        ("neighbours", {"prompt": "x"}, "'neighbours' must be a list"),
        ("neighbours", [{"answer": "x"}], "'neighbours' needs texts or objects"),
        ("neighbours", [{"prompt": "x", "answer": 3}], "answer that is not text"),
        ("neighbours", [{"prompt": "x\x00"}], "NUL"),
        ("target_true", 3, "'target_true' is int"),
        ("target_old", "x", "unknown field 'target_old'"),
    ],
)
def test_our_own_layout_is_checked_field_by_field(field: str, value: Any, says: str, write: Write) -> None:
    message = refused("jsonl", write({**GOOD["jsonl"], field: value}))
    assert message.startswith("rows.jsonl:1")
    assert says in message


@pytest.mark.parametrize(
    ("loader", "field", "value", "says"),
    [
        ("counterfact", "rephrase_prompt", 3, "'rephrase_prompt' is int"),
        ("counterfact", "rephrase_prompt", ["a", 3], "'rephrase_prompt' is int"),
        ("counterfact", "locality_ground_truth", ["a", "b"], "2 texts for 0 in 'locality_prompt'"),
        ("counterfact", "case_id", 1.5, "'case_id' is float"),
        ("counterfact", "case_id", True, "'case_id' is bool"),
        ("counterfact", "prompt", "{} and Ashurn", "holds {} and the subject at once"),
        ("hardcf", "requested_rewrite", [], "'requested_rewrite' is list, expected an object"),
        ("hardcf", "paraphrase_prompts", {"a": 1}, "'paraphrase_prompts' is dict"),
        ("qaedit", "locality", ["x"], "'locality' holds 'x', expected {prompt, ground_truth}"),
        ("qaedit", "locality", [{"loc_ans": "x"}], "locality[0]: field 'loc' is missing"),
        ("me_ppl", "Text", "", "'Text' is empty"),
        ("me_ppl", "Text", None, "'Text' is NoneType"),
        ("plain", "text", 1, "'text' is int"),
    ],
)
def test_published_layouts_are_checked_field_by_field(
    loader: str, field: str, value: Any, says: str, write: Write
) -> None:
    message = refused(loader, write({**{**GOOD, **TEXTS}[loader], field: value}))
    assert message.startswith("rows.jsonl:1")
    assert says in message


def test_rows_of_a_list_are_named_by_their_index(write: Write) -> None:
    rows = (GOOD["counterfact"], {**GOOD["counterfact"], "case_id": 2, "target_new": ""})
    assert "rows.json[1]: field 'target_new' is empty" in refused("counterfact", write(*rows, name="rows.json"))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_line_endings_and_byte_order_marks_do_not_matter(newline: str, bom: bytes, name: str, write: Write) -> None:
    rows = [GOOD["jsonl"], {**GOOD["jsonl"], "id": "b"}]
    text = json.dumps(rows, indent=1) if name == "rows.json" else "\n\n".join(map(json.dumps, rows)) + "\n\n"
    path = write(name=name, data=bom + text.replace("\n", newline).encode())
    assert [request.id for request in datasets.requests(f"jsonl:{path}")] == ["a", "b"]


@pytest.mark.parametrize(
    "subject", ["東京", "القاهرة", "🙂‍↔️", "Ko\u0301smos", "{braces}", "a\u2028b", 'quo"te\\', "x" * 5000]
)
@pytest.mark.parametrize("escaped", [True, False])
def test_any_script_is_fine_as_a_subject(subject: str, escaped: bool, write: Write) -> None:
    row = {**GOOD["counterfact"], "subject": subject, "prompt": f"In {subject} they speak"}
    path = write(data=json.dumps(row, ensure_ascii=escaped).encode())
    (request,) = datasets.requests(f"counterfact:{path}")
    assert request.subject == subject
    assert request.prompt == "In {} they speak"
    assert request.filled == row["prompt"]


def test_a_prompt_of_a_megabyte_is_read_as_it_is(write: Write) -> None:
    (request,) = datasets.requests(f"jsonl:{write(altered('jsonl', 'prompt', 'word ' * 200_000 + '{} is'))}")
    assert len(request.prompt) > 1_000_000


def test_targets_and_answers_are_stripped_and_prompts_are_as_given(write: Write) -> None:
    row = {
        **GOOD["jsonl"],
        "prompt": " {} works as a ",
        "target_new": " farmer ",
        "target_true": "\tbaker\n",
        "rephrasings": [" The work of Ashurn is "],
        "neighbours": [{"prompt": "Mirel is a ", "answer": " baker"}, "Toren is a "],
    }
    (request,) = datasets.requests(f"jsonl:{write(row)}")
    assert request.prompt == " {} works as a "
    assert (request.target_new, request.target_true) == ("farmer", "baker")
    assert request.rephrasings == (" The work of Ashurn is ",)
    assert [(n.prompt, n.answer) for n in request.neighbours] == [("Mirel is a ", "baker"), ("Toren is a ", "")]


def test_spaces_in_texts_are_kept(write: Write) -> None:
    assert datasets.texts(f"me_ppl:{write({'Text': '  Two. '})}") == ("  Two. ",)


def test_a_text_file_holds_one_text_per_line(write: Write) -> None:
    path = write(name="my.txt", data=b"First one.\r\n\r\n Second one.\n")
    assert datasets.texts(str(path)) == ("First one.", " Second one.")
