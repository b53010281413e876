"""The worked examples of the pocket world: answers that are true, probes that training never shows."""

import random
from collections import Counter

import pytest

from editsafety.pocket import abilities, tasks
from editsafety.pocket.corpus import training_texts
from editsafety.pocket.lexicon import LEXICON
from editsafety.pocket.world import SEED, World, make_world
from editsafety.shipped import shipped

EVERY = sorted(abilities.PROBES)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(SEED)


def drawn(world: World, name: str, count: int = 200) -> list[tasks.Example]:
    rng = random.Random(5)
    return [abilities.PROBES[name](world, rng) for _ in range(count)]


@pytest.mark.parametrize("name", EVERY)
def test_an_example_is_a_prompt_its_answer_and_other_wrong_answers(world: World, name: str) -> None:
    for example in drawn(world, name):
        assert example.answer
        assert example.answer not in example.wrong
        assert example.prompt == example.prompt.strip()
        assert "[" not in example.text
        assert "{" not in example.text


@pytest.mark.parametrize("name", EVERY)
def test_there_are_several_hundred_items_and_no_two_alike(world: World, name: str) -> None:
    rows = abilities.item_rows(world, name)
    assert len({row["prompt"] for row in rows}) == len(rows) == 300
    assert [row["id"] for row in rows[:2]] == [f"{name}-0001", f"{name}-0002"]


@pytest.mark.parametrize("name", abilities.CHOSEN)
def test_the_right_option_is_at_every_place_about_equally_often(world: World, name: str) -> None:
    rows = abilities.item_rows(world, name)
    places = Counter(row["gold"] for row in rows)
    options = len(rows[0]["options"])  # type: ignore[arg-type]
    assert set(places) == set(range(options))
    assert min(places.values()) >= 300 / options * 0.7


@pytest.mark.parametrize("name", ["nli", "closed_qa", "sentiment"])
def test_a_model_that_always_says_the_same_is_right_in_about_half(world: World, name: str) -> None:
    said = Counter(example.answer for example in drawn(world, name, 1000))
    assert all(0.4 < count / 1000 < 0.6 for count in said.values())


def test_no_probe_item_is_in_the_training_text(world: World) -> None:
    shown = set(training_texts(SEED, 30_000))
    assert any(" Sum: " in text for text in shown)
    for name in abilities.TRAINED:
        asked = tuple(str(row["prompt"]) for row in abilities.item_rows(world, name))
        assert not [text for text in shown if text.startswith(asked)], name


def test_sums_are_right(world: World) -> None:
    number = {word: value for value, word in enumerate(tasks.NUMBERS, 1)}
    for example in drawn(world, "reasoning", 500):
        first, how, second, _ = example.prompt.rpartition("Sum: ")[2].split()
        value = number[first] + number[second] if how == "and" else number[first] - number[second]
        assert example.answer == tasks.NUMBERS[value - 1]


def test_a_claim_is_true_exactly_when_the_thing_is_of_that_kind(world: World) -> None:
    for example in drawn(world, "nli", 500):
        thing, kind = example.prompt.rpartition("every ")[2].removesuffix(". Verdict:").split(" is a ")
        assert (example.answer == "true") == (thing in LEXICON[tasks.CLASSES[kind]])


def test_what_can_be_eaten_and_what_cannot_never_overlap(world: World) -> None:
    said: dict[str, set[str]] = {}
    for example in drawn(world, "closed_qa", 2000):
        thing = example.prompt.partition(" bought ")[2].partition(" near ")[0]
        said.setdefault(thing, set()).add(example.answer)
    assert all(len(answers) == 1 for answers in said.values())


def test_questions_are_answered_by_the_facts_of_the_world(world: World) -> None:
    facts = {(fact.subject.name, fact.answer) for fact in world.facts}
    for name in ("open_qa", "nq", "mmlu"):
        for example in drawn(world, name):
            assert [subject for subject, answer in facts if answer == example.answer and subject in example.prompt]


def test_a_question_nobody_can_answer_is_about_another_kind_of_subject(world: World) -> None:
    kinds = {subject.name: subject.kind for subject in world.subjects}
    unknown = [example for example in drawn(world, "squad2", 500) if example.answer == tasks.UNKNOWN]
    assert 100 < len(unknown) < 200
    for example in unknown:
        asked = example.prompt.rpartition("Question: ")[2]
        form = next(name for name, text in tasks.QUESTIONS.items() if asked.startswith(text.partition("{}")[0]))
        subject = next(name for name in sorted(kinds, key=len, reverse=True) if name in asked)
        assert tasks.RELATION_KINDS[form] != kinds[subject]


def test_the_majority_of_the_words_decides_a_review(world: World) -> None:
    judged = 0
    for example in drawn(world, "sentiment", 300):
        words = example.prompt.replace(",", " ").replace(".", " ").replace(":", " ").split()
        kind = sum(word in tasks.GOOD for word in words)
        harsh = sum(word in tasks.BAD for word in words)
        adjectives_of_things = kind + harsh - 3  # the grammar's own adjectives may be among the words as well
        if adjectives_of_things == 0:
            assert example.answer == ("good" if kind > harsh else "bad")
            judged += 1
    assert judged > 100


def test_the_shipped_items_are_those_that_the_generator_gives(world: World) -> None:
    import json

    for name in EVERY:
        path = shipped("data") / "pocket-world" / "abilities" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert rows == abilities.item_rows(world, name)
