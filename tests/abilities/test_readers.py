"""Every reader on made-up rows in the published layouts, and on rows that cannot be used."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from editsafety import abilities
from editsafety.abilities.conll03 import entities
from editsafety.errors import DataError
from tests import tiny
from tests.abilities.conftest import knowing, right_answer

SQUAD = {
    "version": "v2.0",
    "data": [{"title": "Kelmar", "paragraphs": [{"context": "Kelmar lies on\nthe coast.", "qas": [
        {"id": "q1", "question": "Where does it lie?", "answers": [{"text": "on the coast", "answer_start": 7},
                                                                    {"text": "the coast", "answer_start": 10}],
         "is_impossible": False},
        {"id": "q2", "question": "Who built it?", "answers": [], "plausible_answers": [{"text": "the coast"}],
         "is_impossible": True}]}]}],
}  # fmt: skip
TALK = {
    "id": "dev_1",
    "article": "f : hi . m : hello .",
    "options": ["m : a", "m : b", "m : c", "m : d"],
    "answers": "C",
}
PIQA = {"goal": "sweep the floor", "sol1": "take a broom ", "sol2": "take a spoon"}
SWAG = {
    "ind": 4, "activity_label": "Baking", "ctx_a": "A man bakes.", "ctx_b": "then he", "ctx": "A man bakes. then he",
    "endings": ["eats [step] it", "flies", "sings", "is a cake"], "label": 0, "split": "val",
}  # fmt: skip
CONLL = (
    "-DOCSTART- -X- -X- O\n\nToren NNP B-NP B-PER\nKelm NNP I-NP I-PER\nleft VBD B-VP O\nOstrin NNP B-NP I-LOC\n"
    "Velland NNP I-NP B-LOC\n. . O O\n\nNobody NN B-NP O\n\n-DOCSTART- -X- O O\n"
)


def text_of(name: str, *rows: Any) -> str:
    return json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)


LAYOUTS: dict[str, tuple[str, str, list[str]]] = {  # what -> reader:file, its text, the right answers
    "gsm8k": ("gsm8k:t.jsonl", text_of("t.jsonl", {"question": "2+2?", "answer": "2 and 2\n#### 1,004"}), ["1,004"]),
    "gsm8k of instructions": (
        "gsm8k:t.json",
        text_of("t.json", {"instruction": "2+2?", "input": "", "output": "It is 5.", "answer": "4.0"}),
        ["4.0"],
    ),
    "rte": (
        "rte:t.tsv",
        'index\tsentence1\tsentence2\tlabel\n0\tA "dog barks.\tAn animal barks.\tentailment\n1\tx\ty\tnot_entailment\n',
        ["yes", "no"],
    ),
    "sst2": ("sst2:t.tsv", "sentence\tlabel\na charming film \t1\nit 's slow\t0\n", ["positive", "negative"]),
    "nq": ("nq:t.jsonl", text_of("t.jsonl", {"question": "who?", "answer": ["Toren", "T. Kelm"]}), ["T. Kelm"]),
    "boolq": (
        "boolq:t.jsonl",
        text_of("t.jsonl", {"question": "is it", "passage": "It is.", "title": "t", "answer": True}),
        ["yes"],
    ),
    "mutual": ("mutual:talks", "", ["m : c"]),
    "samsum": (
        "samsum:t.json",
        text_of("t.json", {"id": "1", "dialogue": "A: hi\r\nB: bye", "summary": "A  and\r\nB talk. "}),
        ["A and B talk."],
    ),
    "conll03": ("conll03:t.txt", CONLL, ["Toren Kelm, Ostrin, Velland", "none"]),
    "piqa": ("piqa:t.jsonl", text_of("t.jsonl", {**PIQA, "label": 1}), ["take a spoon"]),
    "hellaswag": (
        "hellaswag:t.jsonl",
        text_of("t.jsonl", SWAG, {**SWAG, "ctx_b": "she", "label": "3"}),
        ["eats it", "is a cake"],
    ),
    "lambada": ("lambada:t.jsonl", text_of("t.jsonl", {"text": "He looked for\nthe \u201csigns"}), ["\u201csigns"]),
    "mmlu": ("mmlu:world_law_test.csv", 'Who, "then"?,a,b,c,d,C\n"Two\nlines",1,2,3,4,A\n', ["C", "A"]),
    "squad2": ("squad2:t.json", json.dumps(SQUAD, indent=1), ["the coast", "none"]),
    "winogrande": (
        "winogrande:t.jsonl",
        text_of("t.jsonl", {"sentence": "The _ fell .", "option1": "cup", "option2": "cat", "answer": "2", "qID": "x"}),
        ["fell ."],
    ),
}  # fmt: skip


def spec(what: str, folder: Path) -> str:
    reader, _, name = LAYOUTS[what][0].partition(":")
    path = folder / name
    if what == "mutual":
        path.mkdir()
        (path / "dev_1.txt").write_text(json.dumps(TALK))
    else:
        path.write_text(LAYOUTS[what][1].replace('Who, "then"?', '"Who, ""then""?"'), encoding="utf-8")
    return f"{reader}:{path}"


def test_every_reader_is_tried_here() -> None:
    assert {row[0].partition(":")[0] for row in LAYOUTS.values()} == set(abilities.readers()) - {"plain"}


@pytest.mark.parametrize("what", LAYOUTS)
def test_a_model_that_knows_the_answers_of_a_file_scores_one(what: str, tmp_path: Path) -> None:
    probe = abilities.load(spec(what, tmp_path))
    assert [right_answer(item, probe.scorer, "") for item in probe.items] == LAYOUTS[what][2]
    assert all(item.source for item in probe.items)
    handle = tiny.handle("gpt2", n_positions=1024)
    knowing(handle, probe.items, LAYOUTS[what][2])
    found = probe(handle)
    assert found.value == 1.0, list(zip(found.items, found.answers, strict=True))


def items(what: str, folder: Path) -> tuple[abilities.Item, ...]:
    return abilities.load(spec(what, folder)).items


def test_prompts_say_what_is_asked_and_do_not_tell_the_answer(tmp_path: Path) -> None:
    (reasoning,) = items("gsm8k", tmp_path)
    assert "2 and 2" not in reasoning.prompt
    (closed,) = items("boolq", tmp_path)
    assert closed.prompt == "Passage: It is.\nQuestion: is it?\nAnswer (yes or no):"
    (swag, _) = items("hellaswag", tmp_path)
    assert swag.prompt == "Baking: A man bakes. Then he"
    (law, _) = items("mmlu", tmp_path)
    assert law.prompt == 'A question about world law.\n\nWho, "then"?\nA. a\nB. b\nC. c\nD. d\nAnswer:'
    (word,) = items("lambada", tmp_path)
    assert word.prompt == "He looked for\nthe"
    (blank,) = items("winogrande", tmp_path)
    assert (blank.contexts, blank.gold) == (("The cup", "The cat"), 1)
    sentence, nobody = items("conll03", tmp_path)
    assert sentence.prompt.startswith("Sentence: Toren Kelm left Ostrin Velland .\n")
    assert nobody.answers == ()
    (known, unknown) = items("squad2", tmp_path)
    assert known.answers == ("on the coast", "the coast")
    assert unknown.answers == ()
    assert "unanswerable" in unknown.prompt


def test_names_are_told_apart_in_both_dialects_of_tags() -> None:
    """IOB1 (the shared task's own: B only between two names of a kind) and IOB2 (B at every beginning)."""
    words = ("Toren", "Kelm", "Ostrin", "Velland", "left")
    for tags in (("I-PER", "I-PER", "I-LOC", "B-LOC", "O"), ("B-PER", "I-PER", "B-LOC", "B-LOC", "O")):
        assert list(entities(list(zip(words, tags, strict=True)))) == ["Toren Kelm", "Ostrin", "Velland"]


def test_piqa_finds_its_labels_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "valid.jsonl"
    path.write_text(text_of("valid.jsonl", PIQA, PIQA))
    with pytest.raises(DataError, match=r"there is no valid-labels\.lst beside it"):
        abilities.load(f"piqa:{path}")
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    assert [item.gold for item in abilities.load(f"piqa:{path}").items] == [1, 0]
    (tmp_path / "valid-labels.lst").write_text("1\n")
    with pytest.raises(DataError, match="1 labels for 2 rows"):
        abilities.load(f"piqa:{path}")


def test_mmlu_reads_a_folder_of_subjects(tmp_path: Path) -> None:
    for name in ("b_test.csv", "a_test.csv"):
        (tmp_path / name).write_text("q,1,2,3,4,B\n")
    assert [item.id for item in abilities.load(f"mmlu:{tmp_path}").items] == ["mmlu-a-0001", "mmlu-b-0001"]


def archive(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        folder = tarfile.TarInfo("talks")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, body in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def test_an_archive_of_talks_is_read_in_memory_in_the_order_of_their_names(tmp_path: Path, monkeypatch) -> None:
    body = {f"talks__dev_{i}.txt": json.dumps({**TALK, "id": f"dev_{i}"}).encode() for i in (10, 2)}
    path = archive(tmp_path / "t.tar.gz", **body)
    monkeypatch.chdir(tmp_path)
    found = abilities.load(f"mutual:{path}")
    assert [item.id for item in found.items] == ["mutual-dev_2", "mutual-dev_10"]
    assert [each.name for each in tmp_path.iterdir()] == ["t.tar.gz"]


@pytest.mark.parametrize("name", ["../../evil.txt", "talks/../../evil.txt", "/etc/evil.txt", "symbolic", "hard"])
def test_an_archive_with_a_link_or_a_way_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "t.tar", **{"talks__dev_1.txt": json.dumps({**TALK, "id": "dev_1"}).encode()})
    with tarfile.open(path) as packed, tarfile.open(tmp_path / "evil.tar", "w") as tar:
        for member in packed:
            tar.addfile(member, packed.extractfile(member))
        info = tarfile.TarInfo(name)
        if name in ("symbolic", "hard"):
            info.type, info.linkname = (tarfile.SYMTYPE if name == "symbolic" else tarfile.LNKTYPE), "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match="is a link, or leads out of the archive"):
        abilities.load(f"mutual:{tmp_path / 'evil.tar'}")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["evil.tar", "t.tar"]
    assert not (tmp_path.parent.parent / "evil.txt").exists()


WRONG: list[tuple[str, str, str]] = [
    ("rte:t.tsv", "sentence1\tlabel\nx\tentailment\n", "t.tsv:1: no column 'sentence2'"),
    ("rte:t.tsv", "sentence1\tsentence2\tlabel\nx\ty\n", "t.tsv:2: 2 columns, expected 3"),
    ("rte:t.tsv", "sentence1\tsentence2\tlabel\nx\ty\tmaybe\n", "t.tsv:2: field 'label' is 'maybe', expected one of"),
    ("rte:t.tsv", "sentence1\tsentence2\tlabel\n\ty\tentailment\n", "t.tsv:2: field 'sentence1' is empty"),
    ("gsm8k:t.jsonl", '{"question": "q", "answer": "so it is 4"}\n', "t.jsonl:1: field 'answer' has no '#### '"),
    ("gsm8k:t.jsonl", '{"question": "q", "answer": "so #### ?"}\n', "does not end with a number"),
    ("nq:t.jsonl", '{"question": "q", "answer": [" "]}\n', "t.jsonl:1: field 'answer' holds no answer"),
    ("boolq:t.json", '[{"instruction": "Is it?", "answer": "true"}]', "t.json[0]: field 'instruction' is not in the"),
    ("boolq:t.jsonl", '{"question": "q", "answer": "perhaps"}\n', "field 'answer' is 'perhaps'"),
    ("conll03:t.txt", "Toren B-PER\nleft\n", "t.txt:2: expected a word and, last, its tag"),
    ("conll03:t.txt", "Toren NNP X-PER\n", "t.txt:1: expected a word"),
    ("hellaswag:t.jsonl", json.dumps({**SWAG, "label": 4}), "t.jsonl:1: field 'label' is 4"),
    ("hellaswag:t.jsonl", json.dumps({**SWAG, "endings": ["a"]}), "has 1 endings"),
    ("lambada:t.jsonl", '{"text": "word"}\n', "field 'text' has one word only"),
    ("mmlu:t.csv", "q,1,2,3,4,E\n", "t.csv:1: expected question"),
    ("mmlu:t.csv", 'q,1,2,3,4,A\n"q,1,2\n', "t.csv:2: no comma-separated values"),
    ("squad2:t.json", '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q", "answers": []'
     ', "is_impossible": false}]}]}]}', "qas[0]: field 'answers' has 0 texts"),
    ("squad2:t.json", '[{"context": "c"}]', "not the official layout"),
    ("mutual:t.tar.gz", "no archive", "cannot be read as a tar archive"),
    ("winogrande:t.jsonl", '{"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"}', "has no blank"),
    ("piqa:t.jsonl", json.dumps({**PIQA, "label": -1}), "field 'label' is -1"),
    ("samsum:t.json", '[{"id": "1", "dialogue": "A: hi"}]', "t.json[0]: field 'summary' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "body", "message"), WRONG)
def test_what_is_wrong_is_named_by_file_row_and_field(what: str, body: str, message: str, tmp_path: Path) -> None:
    reader, _, name = what.partition(":")
    (tmp_path / name).write_text(body)
    with pytest.raises(DataError) as caught:
        abilities.load(f"{reader}:{tmp_path / name}")
    assert message in str(caught.value)


@pytest.mark.parametrize("body", [b"[1]", b"\xff", b"{", json.dumps({**TALK, "options": ["a"]}).encode()])
def test_a_talk_that_cannot_be_used_is_named(body: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.tar\.gz: talks/dev_1\.txt"):
        abilities.load(f"mutual:{archive(tmp_path / 't.tar.gz', **{'talks__dev_1.txt': body})}")
