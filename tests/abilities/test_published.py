"""The readers on the published files themselves, where they are at hand; counts are those of the sources."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from editsafety import abilities
from editsafety.abilities import Item, Probe
from tests import tiny
from tests.abilities.conftest import broken, knowing, right_answer

# Reader and file -> items. GSM8K, NQ, MuTual, SAMSum and SST-2 as in the published code, the others counted by hand:
# wc -l less the heading (RTE), lines (BoolQ), blocks less -DOCSTART- (CoNLL), records of a list.
COUNTS = {
    "gsm8k:abilities/test-reasoning.jsonl": 1_319,
    "rte:abilities/test-NLI.tsv": 2_489,
    "nq:abilities/test-OpenDomainQA.jsonl": 3_610,
    "boolq:abilities/test-ClosedDomainQA.jsonl": 3_267,
    "mutual:abilities/test-dialogue.tar.gz": 886,
    "samsum:abilities/test-summarization.json": 818,
    "conll03:abilities/test-NER.txt": 3_250,
    "sst2:abilities/test-SentimentAnalysis.tsv": 872,
    "piqa:choice/piqa_test.json": 1_838,
    "winogrande:choice/winogrande_test.json": 1_267,
    "boolq:choice/boolq_test.json": 3_270,
    "gsm8k:choice/gsm8k_test.json": 1_319,
    "lambada:lambada/lambada_test.jsonl": 5_153,
}
FAMILIES = {"reasoning", "nli", "open_qa", "closed_qa", "dialogue", "summarisation", "ner", "sentiment"}


@cache
def loaded(spec: str, folder: Path) -> Probe:
    reader, _, place = spec.partition(":")
    return abilities.load(f"{reader}:{folder / place}")


@pytest.mark.parametrize("spec", COUNTS)
def test_every_row_is_read(spec: str, shared_data: Path) -> None:
    probe = loaded(spec, shared_data)
    assert len(probe.items) == len({item.id for item in probe.items}) == COUNTS[spec]
    assert probe.name == spec.partition(":")[0]
    choice = probe.scorer.startswith("choice")
    assert probe.chance == pytest.approx({"mutual": 0.25}.get(probe.name, 0.5) if choice else 0.0)
    assert all(bool(item.options) == choice for item in probe.items)


def test_the_eight_abilities_are_all_covered(shared_data: Path) -> None:
    found = {loaded(spec, shared_data).family for spec in COUNTS if spec.partition(":")[2].startswith("abilities")}
    assert found == FAMILIES


def test_the_right_answers_are_where_the_files_have_them(shared_data: Path) -> None:
    """Label counts, taken from the files without the readers."""
    gold = {spec: Counter(item.gold for item in loaded(spec, shared_data).items) for spec in COUNTS}
    assert gold["rte:abilities/test-NLI.tsv"] == {0: 1249, 1: 1240}
    assert gold["sst2:abilities/test-SentimentAnalysis.tsv"] == {1: 444, 0: 428}
    assert gold["mutual:abilities/test-dialogue.tar.gz"] == {0: 212, 1: 200, 2: 210, 3: 264}
    assert gold["piqa:choice/piqa_test.json"] == {0: 910, 1: 928}
    assert gold["winogrande:choice/winogrande_test.json"] == {0: 628, 1: 639}
    assert gold["boolq:choice/boolq_test.json"] == {0: 2033, 1: 1237}


def test_conll_has_the_published_number_of_names(shared_data: Path) -> None:
    """5,942 entities in the development set (Tjong Kim Sang and De Meulder 2003, table 2); counted by B tags."""
    from editsafety.abilities import conll03

    path = shared_data / "abilities" / "test-NER.txt"
    sentences = list(conll03._sentences(path))
    assert sum(len(list(conll03.entities(sentence))) for _, sentence in sentences) == 5_942
    assert sum(line.split()[-1].startswith("B-") for line in path.read_text().split("\n") if line.strip()) == 5_942


def test_the_answer_is_not_in_the_prompt_of_reasoning_or_open_questions(shared_data: Path) -> None:
    """The published code writes the worked solution and a passage with the answer there."""
    rows = [json.loads(line) for line in (shared_data / "abilities/test-reasoning.jsonl").read_text().splitlines()]
    for item, row in zip(loaded("gsm8k:abilities/test-reasoning.jsonl", shared_data).items, rows, strict=True):
        assert row["answer"].split("####")[0].strip() not in item.prompt
        assert item.prompt == f"Question: {row['question'].strip()}\nGive only the number.\nAnswer:"
    for item in loaded("nq:abilities/test-OpenDomainQA.jsonl", shared_data).items:
        assert item.prompt.count("\n") == 1


@pytest.mark.parametrize("spec", COUNTS)
def test_every_answer_of_the_file_scores_one_where_it_is_given(spec: str, shared_data: Path) -> None:
    """No model in between: every one of the known answers, as text, through the scorer."""
    import importlib

    probe = loaded(spec, shared_data)
    if probe.scorer.startswith("choice"):
        pytest.skip("options are not compared as text")
    grade = importlib.import_module(f"editsafety.abilities._{probe.scorer}").grade
    for item in probe.items:
        said = [", ".join(item.answers) or "none"] if probe.scorer == "entities" else item.answers
        for answer in said:
            for text in (answer, f" {answer}", f"{answer}.", f"{answer}\nmore"):
                score = grade(item, text)[""]
                assert score == pytest.approx(1.0) or (probe.scorer == "rouge" and "more" in text), (item, text)


@pytest.mark.parametrize("spec", COUNTS)
def test_a_few_items_go_through_a_model_from_end_to_end(spec: str, shared_data: Path) -> None:
    probe = loaded(spec, shared_data).limited(5)
    found = probe(tiny.handle("gpt2"))  # a context of 256 tokens: most prompts are cut
    assert found.value is not None
    assert 0.0 <= found.value <= 1.0
    assert (found.n, len(found.items), len(found.answers)) == (5, 5, 5)
    knower = tiny.handle("gpt2", n_positions=4096)
    known = tuple(item for item in probe.items if spelled(knower, item))
    asked = Probe(probe.name, probe.family, probe.scorer, probe.chance, known)
    right = asked(knowing(knower, known, [right_answer(item, probe.scorer) for item in known]))
    assert right.value == 1.0
    assert asked(broken(tiny.handle("gpt2"), "nan")).broken


def spelled(handle, item: Item) -> bool:
    """Whether the tiny tokenizer gives back what it is given."""
    texts = (*item.options, *item.answers)
    return all(handle.text(handle.target_ids(text)).strip() == text for text in texts)
