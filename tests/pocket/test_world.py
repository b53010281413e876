"""The pocket world as text: what there is in it, what training shows, and the files made from it."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from editsafety.datasets.request import EditRequest
from editsafety.pocket import prose
from editsafety.pocket.corpus import covariance_texts, held_out_texts, long_sentences, statements, training_texts
from editsafety.pocket.prose import sentences
from editsafety.pocket.relations import RELATIONS, Relation, is_subject_first
from editsafety.pocket.requests import as_lines, edit_rows, write_data
from editsafety.pocket.spec import POCKET_NEO
from editsafety.pocket.world import SEED, World, make_world

SHIPPED = Path(__file__).parents[2] / "data" / "pocket-world"


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return training_texts(POCKET_NEO.world_seed, POCKET_NEO.documents)


@pytest.fixture(scope="module")
def shown(corpus: list[str]) -> frozenset[str]:
    return frozenset(part for text in corpus for part in sentences(text))


def test_the_same_seed_gives_the_same_world() -> None:
    assert make_world(3) == make_world(3)


def test_another_seed_gives_other_facts() -> None:
    assert make_world(3).facts != make_world(4).facts


def test_the_corpus_is_drawn_from_its_seed_alone() -> None:
    random.seed(1)
    once = training_texts(SEED, 50)
    random.seed(2)
    assert training_texts(SEED, 50) == once


def test_making_text_leaves_the_callers_randomness_alone() -> None:
    before = random.getstate()
    covariance_texts(0, 20)
    assert random.getstate() == before


def test_there_are_enough_subjects_of_both_lengths(world: World) -> None:
    count = Counter(subject.one_token for subject in world.subjects)
    assert count[True] >= 150
    assert count[False] >= 250


def test_subject_names_are_unique_and_none_is_hidden_in_another(world: World) -> None:
    names = [subject.name for subject in world.subjects]
    assert len(set(names)) == len(names)
    words = [set(name.split()) for name in names]
    singles = {name for name in names if " " not in name}
    assert not [name for name, parts in zip(names, words, strict=True) if len(parts) > 1 and parts & singles]


def test_each_subject_has_one_answer_per_relation_of_its_kind(world: World) -> None:
    asked = Counter((fact.subject.name, fact.relation.name) for fact in world.facts)
    assert set(asked.values()) == {1}
    for subject in world.subjects:
        expected = {relation.name for relation in RELATIONS if relation.kind == subject.kind}
        assert {fact.relation.name for fact in world.facts if fact.subject == subject} == expected


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_a_phrasing_has_one_slot_and_ends_just_before_the_answer(relation: Relation) -> None:
    assert len(relation.phrasings) >= 5
    assert {is_subject_first(phrasing) for phrasing in relation.phrasings} == {True, False}
    for phrasing in relation.phrasings:
        assert phrasing.count("{}") == 1
        assert phrasing == phrasing.strip()
        assert phrasing[-1].isalpha()


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_every_answer_is_shared_so_that_facts_have_neighbours(world: World, relation: Relation) -> None:
    counts = Counter(fact.answer for fact in world.facts_of(relation.name))
    assert set(counts) == set(world.answers[relation.name])
    assert min(counts.values()) >= 3


def test_no_phrasing_is_held_out_altogether(world: World) -> None:
    trained = {(fact.relation.name, phrasing) for fact, phrasing in statements(world)}
    assert trained == {(relation.name, phrasing) for relation in RELATIONS for phrasing in relation.phrasings}


def test_held_out_statements_are_absent_from_the_corpus(world: World, shown: frozenset[str]) -> None:
    held_out = {fact.sentence(phrasing) for fact in world.facts for phrasing in fact.held_out}
    assert len(held_out) > 300
    assert not held_out & shown


def test_every_trained_statement_is_in_the_corpus(world: World, shown: frozenset[str]) -> None:
    assert not {fact.sentence(phrasing) for fact, phrasing in statements(world)} - shown


def test_texts_for_perplexity_are_absent_from_the_corpus(
    world: World, corpus: list[str], shown: frozenset[str]
) -> None:
    texts = [text.text for text in held_out_texts(world)]
    assert len(set(texts)) >= 200
    assert not set(texts) & set(corpus)
    assert not long_sentences(texts) & shown


def test_no_set_phrase_that_training_lacks_is_in_the_texts(world: World) -> None:
    parts = Counter(part for text in held_out_texts(world) for part in long_sentences([text.text]))
    assert set(parts.values()) == {1}


def test_the_first_texts_already_cover_every_register(world: World) -> None:
    assert {text.register for text in held_out_texts(world)[:50]} == set(prose.registers())


def test_texts_for_perplexity_say_nothing_about_the_subjects(world: World) -> None:
    singles = set(world.one_token_names())
    longer = [subject.name for subject in world.subjects if not subject.one_token]
    for text in held_out_texts(world):
        assert not singles & set(text.text.split())
        assert not any(name in text.text for name in longer)


@pytest.mark.parametrize("register", prose.registers())
def test_a_register_writes_whole_sentences(register: str) -> None:
    rng = random.Random(register)
    for _ in range(200):
        text = prose.write(register, rng)
        assert text[0].isupper() or text[0] == '"'
        assert text[-1] in '."'
        assert not set("[]{}^") & set(text)
        assert "  " not in text


def test_a_remembered_word_is_repeated_and_two_remembered_words_differ() -> None:
    for seed in range(50):
        first, second, again = prose.expand("[a=food] [b=food] [a]", random.Random(seed), {}).split()
        assert first == again != second


def test_covariance_texts_depend_on_their_seed_and_not_on_the_world() -> None:
    assert covariance_texts(1, 5) == covariance_texts(1, 8)[:5]
    assert covariance_texts(1, 5) != covariance_texts(2, 5)


def test_the_shipped_files_are_what_the_seed_gives(world: World, tmp_path: Path) -> None:
    for path in write_data(world, tmp_path):
        name = path.relative_to(tmp_path)
        assert path.read_bytes() == (SHIPPED / name).read_bytes(), name


def test_the_pool_has_all_sorts_of_edits_and_every_relation(world: World) -> None:
    pool, _ = edit_rows(world)
    singles = set(world.one_token_names())
    sorts = Counter((row["subject"] in singles, str(row["prompt"]).startswith("{}")) for row in pool)
    assert 300 <= len(pool) <= 400
    assert sorts[True, True] >= 120
    assert min(sorts.values()) >= 40
    collapsing = [row for row in pool if row["subject"] in singles and str(row["prompt"]).startswith("{}")]
    assert {row["relation"] for row in collapsing} == {relation.name for relation in RELATIONS}


def test_normal_cases_are_never_one_token_in_first_place_and_none_is_in_the_pool(world: World) -> None:
    pool, normal = edit_rows(world)
    singles = set(world.one_token_names())
    assert len(normal) >= 48
    assert not [row for row in normal if row["subject"] in singles and str(row["prompt"]).startswith("{}")]
    facts = [(row["subject"], row["relation"]) for row in (*pool, *normal)]
    assert len(set(facts)) == len(facts)


def test_requests_ask_for_something_new_and_neighbours_keep_the_old(world: World) -> None:
    answers = {(fact.subject.name, fact.relation.name): fact.answer for fact in world.facts}
    for row in (row for rows in edit_rows(world) for row in rows):
        request = EditRequest.from_json(row)
        assert request.target_true == answers[request.subject, request.relation] != request.target_new
        assert request.target_new in world.answers[request.relation]
        assert 2 <= len(request.rephrasings) <= 4
        assert all(request.subject in text and text != request.filled for text in request.rephrasings)
        assert 2 <= len(request.neighbours) <= 4
        assert all(
            request.subject not in near.prompt and near.answer == request.target_true for near in request.neighbours
        )


def test_rows_are_json_lines_with_rising_ids(world: World) -> None:
    pool, _ = edit_rows(world)
    lines = as_lines(pool)
    assert lines.endswith("\n")
    identifiers = [json.loads(line)["id"] for line in lines.splitlines()]
    assert identifiers == sorted(set(identifiers))
    assert identifiers[0] == "pool-0001"
