"""Every scorer with a model that knows the answers, one that knows none, and answers in every spelling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from editsafety import abilities
from editsafety.abilities import Item, Probe, _choice, _generation
from editsafety.abilities._entities import grade as entities
from editsafety.abilities._exact import grade as exact
from editsafety.abilities._f1 import grade as f1
from editsafety.abilities._last_word import grade as last_word
from editsafety.abilities._rouge import grade as rouge_of
from editsafety.abilities._rouge import longest_common, rouge
from editsafety.abilities._solve import grade as solve
from editsafety.errors import DataError
from editsafety.model.generation import end_ids
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.abilities.conftest import broken, knowing, right_answer

PLACES = ("Kelmar", "Ostrin", "Dorvan", "the old harbour of Kelmar")


def choices(n: int = 8) -> tuple[Item, ...]:
    return tuple(Item(f"c{i}", f"Toren plays{' and plays' * i}. Toren lives in", PLACES, i % 4) for i in range(n))


FREE: dict[str, tuple[tuple[str, ...], ...]] = {
    "exact": (("Kelmar",), ("The Old Harbour", "harbour"), ("Ice - T",), ("May 18 , 2018",), ("28.0. 0.137",)),
    "f1": (("Kelmar",), ("the old harbour",), ("unknown",), ()),
    "rouge": (("Mirel bakes bread every evening",), ("farmer",), ("A baker. A teacher teaches children.",)),
    "entities": (("Kelmar", "Ostrin"), ("U.S.", "Trinidad and Tobago"), (), ("Dorvan, Velland",)),
    "solve": (("18",), ("1,234",), ("-5",), ("576.0",)),
    "last_word": (("signs",), ("“Nadia",), ("thought...Tess",), ("don't",), ("x",)),
}


def free(scorer: str) -> tuple[Item, ...]:
    return tuple(
        Item(f"f{i}", f"Where{' and where' * i} does Toren live?", answers=answers)
        for i, answers in enumerate(FREE[scorer])
    )


def probe(scorer: str) -> Probe:
    items = choices() if scorer.startswith("choice") else free(scorer)
    return Probe("made_up", "made_up", scorer, abilities.chance(items), items)


def spelled(handle: ModelHandle, item: Item) -> bool:
    """Whether the tokenizer knows every letter of the answer (a tiny one may not)."""
    answer = " ".join((*item.options, *item.answers)) or "none"
    return handle.text(handle.target_ids(answer)).strip() == answer


@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos", "metaspace_bos"])
@pytest.mark.parametrize("scorer", abilities.SCORERS)
def test_a_model_that_knows_every_answer_scores_one(scorer: str, spelling: str) -> None:
    for ending in ("", ".") if scorer not in ("choice", "choice_norm") else ("",):
        handle = tiny.handle("gpt2", spelling=spelling)
        asked = probe(scorer)
        asked = replace(asked, items=tuple(item for item in asked.items if spelled(handle, item)))
        knowing(handle, asked.items, [right_answer(item, scorer, ending) for item in asked.items])
        found = asked(handle)
        assert found.value == 1.0, list(zip(found.items, found.answers, strict=True))
        assert (found.name, found.unit, found.n, found.broken) == ("made_up", "rate", len(asked.items), False)


@pytest.mark.parametrize("scorer", abilities.SCORERS)
@pytest.mark.parametrize("how", ["nan", "inf"])
def test_a_model_whose_numbers_are_not_finite_is_broken_and_not_wrong(
    handle: ModelHandle, scorer: str, how: str
) -> None:
    found = probe(scorer)(broken(handle, how))
    assert found.value is None
    assert found.broken
    assert "not finite" in (found.reason or "")


def test_one_item_that_is_not_finite_makes_the_probe_a_finding(handle: ModelHandle) -> None:
    plain, asked = handle.logits, probe("exact")
    first = handle.ids("Where and where and where does")

    def logits(batch):
        scores = plain(batch)
        rows = [i for i, ids in enumerate(batch.ids.tolist()) if ids[: len(first)] == first]
        scores[rows] = math.nan
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    found = asked(handle)
    assert found.broken
    assert found.reason == "1 of 5 items are not finite"
    assert [item is None for item in found.items] == [False, False, True, False, False]


@pytest.mark.parametrize("scorer", abilities.SCORERS)
@pytest.mark.parametrize("how", ["uniform", ".", ",", "x", " the"])
def test_a_dead_model_scores_near_chance(handle: ModelHandle, scorer: str, how: str) -> None:
    asked = probe(scorer)
    if scorer == "last_word":  # one of its words is the x that the dead model says
        asked = Probe("made_up", "made_up", scorer, 0.0, asked.items[:-1])
    found = asked(broken(handle, how))
    assert found.value is not None
    assert abs(found.value - asked.chance) <= (0.25 if scorer.startswith("choice") else 0.05)


def test_options_that_are_equally_probable_share_the_point(handle: ModelHandle) -> None:
    items = (Item("a", "Say", ("x", "y"), 0), Item("b", "Say", ("x", "y"), 1), Item("c", "Say", ("x", "y", "x"), 2))
    scores = _choice.score(broken(handle, "uniform"), items)
    assert scores.values == [0.5, 0.5, 2 / 3]


def test_the_likelihood_of_an_option_is_that_of_its_tokens_one_by_one() -> None:
    """Against log_softmax of single rows, with none of the sharing of rows that the scorer does."""
    handle = tiny.handle("llama", spelling="metaspace_bos")
    items = choices(3)
    found = _choice.likelihoods(handle, items, batch_size=2)
    for item, row in zip(items, found, strict=True):
        for option, value in zip(item.options, row, strict=True):
            prompt, target = handle.ids(item.prompt), handle.target_ids(option)
            logs = torch.log_softmax(handle.logits(handle.batch([[*prompt, *target]]))[0].detach(), -1)
            each = [float(logs[len(prompt) - 1 + k, token]) for k, token in enumerate(target)]
            assert value == pytest.approx(sum(each), rel=1e-5)


def test_plain_and_normalised_likelihood_can_disagree_and_both_are_kept(handle: ModelHandle) -> None:
    items = (Item("a", "Say", ("x", "a farmer and a baker"), 1),)
    row = _choice.likelihoods(handle, items)[0]
    assert row[0] > row[1]  # a longer text is less probable, which is what acc_norm makes up for
    per_character = [row[0] / 1, row[1] / 20]
    expected = float(per_character[1] > per_character[0])
    plain = Probe("p", "p", "choice", 0.5, items).figures(handle)
    norm = Probe("p", "p", "choice_norm", 0.5, items).figures(handle)
    assert [one.name for one in (*plain, *norm)] == ["p", "p", "p_acc"]
    assert plain[0].value == norm[1].value == 0.0
    assert norm[0].value == expected == 1.0


def test_every_option_may_have_a_context_of_its_own() -> None:
    handle = tiny.handle("gpt2")
    item = Item("w", "_ works", ("works as a baker", "works as a baker"), 0, contexts=("Mirel", "Toren"))
    other = Item("w", "_ works", ("works as a baker", "works as a baker"), 1, contexts=("Mirel", "Toren"))
    left, right = _choice.likelihoods(handle, (item,))[0]
    alone = _choice.likelihoods(handle, (Item("m", "Mirel", ("works as a baker", "x"), 0),))[0][0]
    assert left == pytest.approx(alone)
    assert left != right
    assert _choice.score(handle, (item, other)).values == [float(left > right), float(right > left)]


SPELLINGS = {
    "exact": (
        ("Kelmar", "Kelmar", 1), ("Kelmar", " kelmar.", 1), ("Kelmar", "The Kelmar", 1), ("Kelmar", '"Kelmar"', 1),
        ("Kelmar", "The answer is Kelmar.", 1), ("Kelmar", "Answer: Kelmar", 1), ("Kelmar", "Kelmar. It is old.", 1),
        ("Kelmar", "\n\nKelmar\nOstrin", 1), ("Ice - T", "Ice-T", 1), ("Röntgen", "RO\u0308NTGEN", 1),
        ("The The", "the the", 1), ("A", "a.", 1), ("A", '"A"', 1), (")", ")", 1), ("28.0. 0.137", "28.0. 0.137.", 1),
        ("B.D. Wong", "BD Wong", 1), ("rock ' n ' roll", "Rock 'n' roll!", 1), ("St. Louis", "St. Louis.", 1),
        ("Kelmar", "Ostrin", 0), ("Kelmar", "Kelmarin", 0), ("Kelmar", "", 0), ("Kelmar", "...", 0),
        (")", "", 0), ("The The", "", 0), ("Kelmar", "Not Kelmar", 0),
    ),
    "solve": (
        ("18", "18", 1), ("18", "$18", 1), ("18", "18.00", 1), ("18", " The answer is 18.", 1), ("18", "18 eggs", 1),
        ("18", "She makes $18 a day, 7 days a week.", 1), ("18", "16 - 3 - 4 = 9 and 9 * 2 = $18", 1),
        ("18", "The answer is 9 * 2 = 18. The next answer is 20.", 1), ("18", "#### 18", 1), ("18", "eighteen", 1),
        ("18", "USD18", 1), ("18", "**18**", 1), ("18", "(18)", 1), ("18", "x=18", 1), ("18", "$ 18.0.", 1),
        ("1,234", "1234", 1), ("1234", "1,234.", 1), ("1234", "$1,234.00", 1), ("-5", "-5", 1), ("-5", "−5", 1),
        ("-5", "-$5", 1), ("0.5", ".5", 1), ("576.0", "576", 1), ("18", "18%", 1),
        ("18", "180", 0), ("18", "1.8", 0), ("18", "9 or 18", 0), ("18", "none", 0), ("18", "", 0), ("5", "-5", 0),
        ("1234", "1, 234", 0), ("18", "16 - 3", 0),
    ),
    "last_word": (
        ("signs", " signs", 1), ("signs", "Signs.", 1), ("signs", 'signs," she', 1), ("signs", "\nsigns", 1),
        ("“Nadia", '"Nadia,', 1), ("“Nadia", "Nadia", 1), ("don't", "don’t know", 1), ("signs", "signs\"she", 1),
        ("thought...Tess", "thought... Tess", 0), ("thought...Tess", "thought...Tess said", 1),
        ("smoked fish", " smoked fish.", 1), ("farm", "farmer", 0), ("farm", "a farm", 0), ("farm", "", 0),
        ("farm", "...", 0), ("smoked fish", "smoked", 0),
    ),
}  # fmt: skip
GRADES = {"exact": exact, "solve": solve, "last_word": last_word}


@pytest.mark.parametrize(
    ("scorer", "answer", "said", "score"), [(name, *row) for name, rows in SPELLINGS.items() for row in rows]
)
def test_an_answer_counts_in_every_spelling_and_no_other_does(scorer: str, answer: str, said: str, score: int) -> None:
    assert GRADES[scorer](Item("i", "p", answers=("something else", answer)), said)[""] == score


def test_f1_counts_shared_words() -> None:
    """By hand: {old, harbour} and {old, harbour, town} share 2 of 2 + 3; F1 = 2 * 2 / 5."""
    item = Item("i", "p", answers=("the old harbour",))
    assert f1(item, "Old harbour town")[""] == pytest.approx(0.8)
    assert f1(item, "The old, old harbour.")[""] == pytest.approx(2 * 2 / 5)
    assert f1(item, "old harbour. More of it follows here.") == {"": 1.0, "exact": 1.0}
    assert f1(item, "Kelmar") == {"": 0.0, "exact": 0.0}
    assert f1(Item("i", "p", answers=("Kelmar", "the old harbour")), "harbour")[""] == pytest.approx(2 / 3)


@pytest.mark.parametrize("answers", [(), ("unknown",)])
def test_what_cannot_be_answered_is_right_when_the_model_says_so(answers: tuple[str, ...]) -> None:
    item = Item("i", "p", answers=answers)
    for said in ("unknown", " Unanswerable.", "The answer is unknown.", "No answer", "Not mentioned."):
        assert f1(item, said)[""] == 1.0, said
    for said in ("", "...", "Kelmar", "the"):
        assert f1(item, said)[""] == 0.0, said
    assert f1(Item("i", "p", answers=("Kelmar",)), "unknown")[""] == 0.0


def test_rouge_has_the_values_that_were_computed_by_hand() -> None:
    """Lin's own example: "police killed the gunman" against "police kill the gunman" and "the gunman kill police".

    ROUGE-1 3/4 both; ROUGE-2: 1 of 3 pairs both ("the gunman"); ROUGE-L: 3/4 and 2/4 (Lin 2004, section 3).
    """
    reference = "police killed the gunman"
    assert rouge("police kill the gunman", reference) == pytest.approx((3 / 4, 1 / 3, 3 / 4))
    assert rouge("the gunman kill police", reference) == pytest.approx((3 / 4, 1 / 3, 1 / 2))
    # 5 words against 4, 2 shared, no shared pair, common subsequence "a b": F = 2 * 2 / 9
    assert rouge("a x b x x", "a y b y") == pytest.approx((4 / 9, 0, 4 / 9))
    assert rouge("the the the", "the cat") == pytest.approx((2 / 5, 0, 2 / 5))  # a word counts as often as in both
    assert rouge("Farmer.", "farmer") == (1.0, 1.0, 1.0)
    assert rouge("", "farmer") == rouge("...", "farmer") == (0.0, 0.0, 0.0)
    assert longest_common("abcbdab", "bdcaba") == 4  # the example of Cormen et al., section 15.4
    found = rouge_of(Item("i", "p", answers=("x", reference)), "police kill the gunman")
    assert found == pytest.approx({"": (3 / 4 + 1 / 3 + 3 / 4) / 3, "rouge1": 3 / 4, "rouge2": 1 / 3, "rougeL": 3 / 4})


def test_entities_are_compared_as_a_set_of_names() -> None:
    item = Item("i", "p", answers=("Kelmar", "U.S.", "Trinidad and Tobago", "Kelmar"))
    for said in (
        "Kelmar, U.S., Trinidad and Tobago.", " trinidad and tobago; US; Kelmar",
        "Kelmar, Kelmar, U.S. and Trinidad and Tobago",
        "Kelmar, Trinidad and Tobago, and U.S. . Then more is said.", "- Kelmar, US, Trinidad and Tobago",
    ):  # fmt: skip
        assert entities(item, said)[""] == pytest.approx(1.0), said
    assert entities(item, "Kelmar, Ostrin")[""] == pytest.approx(2 * 1 / (2 + 3))
    assert entities(item, "...")[""] == entities(item, "")[""] == entities(item, "none")[""] == 0.0
    empty = Item("i", "p")
    assert entities(empty, "None.")[""] == 1.0
    assert entities(empty, "")[""] == entities(empty, "Kelmar")[""] == 0.0


def test_answers_stop_at_the_end_of_a_line_of_a_text_and_where_the_item_says(handle: ModelHandle) -> None:
    items = (
        Item("line", "First:", answers=("x",), tokens=40),
        Item("sentence", "Second:", answers=("x",), tokens=40, until=("\n", ".")),
        Item("eos", "Third:", answers=("x",), tokens=40),
        Item("room", "Fourth:", answers=("x",), tokens=3),
    )
    knowing(handle, items, ["Kelmar. It is\nold", "Ostrin. It is", "Dorvan", "Mirel plays the violin every evening"])
    line, sentence, eos, room = _generation.answers(handle, items)
    assert (line, sentence, eos) == ("Kelmar. It is", "Ostrin", "Dorvan")
    tokens = handle.target_ids("Mirel plays the violin every evening")
    spoken = len(handle.target_ids("x")) + _generation.SPARE
    assert room == handle.text(tokens[:spoken]).strip()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_do_not_depend_on_the_batch_or_on_the_expected_answer(batch_size: int) -> None:
    handle = tiny.handle("llama")
    plain = [Item(f"i{k}", text, answers=("a farmer",), tokens=12) for k, text in enumerate(tiny.SENTENCES)]
    found = _generation.answers(handle, plain, batch_size)
    expecting = [
        Item(item.id, item.prompt, answers=((said or "").strip() or "x",), tokens=12)
        for item, said in zip(plain, found, strict=True)
    ]
    assert [text[:8] for text in _generation.answers(handle, expecting) if text] == [text[:8] for text in found if text]
    for item, said in zip(plain, found, strict=True):
        ids = handle.ids(item.prompt)
        spoken: list[int] = []
        while len(spoken) < 12:
            token = int(handle.logits(handle.batch([[*ids, *spoken]]))[0, -1].argmax())
            if token in end_ids(handle):
                break
            spoken.append(token)
        assert said == handle.text([*ids, *spoken])[len(handle.text(ids)) :].strip().split("\n")[0].rstrip()


def test_a_prompt_that_is_too_long_keeps_its_end_and_its_first_special_tokens() -> None:
    handle = tiny.handle("llama", spelling="bytes_bos")
    items = (Item("long", "The quick brown fox. " * 60 + "Toren lives in", ("Kelmar", "Ostrin"), 0),)
    seen: list[list[int]] = []
    plain = handle.logits

    def logits(batch):
        seen.extend(batch.ids.tolist())
        return plain(batch)

    handle.logits = logits  # type: ignore[method-assign]
    _choice.likelihoods(handle, items)
    assert max(map(len, seen)) == handle.context - 1  # the last token of an option is not read
    assert all(row[0] == handle.tokenizer.bos_token_id for row in seen)
    assert all("Toren lives in" in handle.text(row) for row in seen)
    with pytest.raises(DataError, match="an answer of 300"):
        _choice.likelihoods(handle, (Item("no", "x", ("a " * 300, "y"), 0, source="f.json:1"),))


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": ("a", "b")}, {"options": ("a", "b"), "gold": 2}, {"options": ("a",), "gold": 0},
        {"options": ("a", " "), "gold": 0}, {"answers": ("",)}, {"options": ("a", "b"), "gold": 0, "contexts": ("x",)},
    ],
)  # fmt: skip
def test_items_that_cannot_be_scored_are_refused(wrong: dict) -> None:
    with pytest.raises(DataError):
        Item("i", "p", **wrong)
