"""The built-in probes, how a probe is named, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editsafety import abilities
from editsafety.errors import DataError, UnknownNameError, UsageError
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.abilities.conftest import broken, knowing, right_answer

FEW = 12
CHANCE = {"nli": 1 / 2, "closed_qa": 1 / 2, "sentiment": 1 / 2, "piqa": 1 / 2, "dialogue": 1 / 4, "hellaswag": 1 / 4,
          "mmlu": 1 / 4}  # fmt: skip


@pytest.fixture(scope="module")
def spelling() -> ModelHandle:
    """The tokenizer that the probes are written for, in front of a tiny model."""
    from transformers import AutoTokenizer

    from editsafety.model.loading import model_folder

    tokenizer = AutoTokenizer.from_pretrained(model_folder("pocket-neo"))
    return ModelHandle.of(tiny.model("gpt2", vocab_size=len(tokenizer)), tokenizer, name="tiny-pocket")


@pytest.fixture
def pocket(spelling: ModelHandle) -> ModelHandle:
    return ModelHandle.of(spelling.model, spelling.tokenizer, name="tiny-pocket")


def rows_file(folder: Path, *rows: object, name: str = "nli.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_eight_families_and_the_six_tasks_of_the_pocket_world_are_built_in() -> None:
    assert abilities.made_for("pocket-neo") == sorted(f"pocket-world/abilities/{name}" for name in abilities.BUILT_IN)
    assert len(abilities.BUILT_IN) == 8 + 6


@pytest.mark.parametrize("name", abilities.BUILT_IN)
def test_a_built_in_probe_has_several_hundred_items_and_a_chance_level(name: str) -> None:
    probe = abilities.load(f"pocket-world/abilities/{name}")
    assert (probe.name, probe.family, probe.scorer) == (name, name, abilities.BUILT_IN[name])
    assert len(probe.items) >= 200
    assert len({item.prompt for item in probe.items}) == len(probe.items)
    assert probe.chance == pytest.approx(CHANCE.get(name, 0.0))
    counts = [sum(item.gold == k for item in probe.items) for k in range(len(probe.items[0].options))]
    assert all(count > len(probe.items) / len(counts) / 2 for count in counts), "a constant choice would pass"


@pytest.mark.parametrize("name", abilities.BUILT_IN)
def test_on_every_built_in_probe_a_model_that_knows_scores_one(name: str, pocket: ModelHandle) -> None:
    probe = abilities.load(name, FEW)
    endings = ("", ".", ".\nMore of it") if not probe.items[0].options else ("",)
    for ending in endings:
        model = ModelHandle.of(pocket.model, pocket.tokenizer, name="knowing")
        knowing(model, probe.items, [right_answer(item, probe.scorer, ending) for item in probe.items])
        found = probe(model)
        assert found.value == 1.0, list(zip(found.items, found.answers, strict=True))


@pytest.mark.parametrize("name", abilities.BUILT_IN)
@pytest.mark.parametrize("how", ["uniform", " the", ".", "nan"])
def test_on_no_built_in_probe_does_a_dead_model_pass(name: str, how: str, pocket: ModelHandle) -> None:
    probe = abilities.load(name, 60 if name in CHANCE else FEW)
    found = probe(broken(pocket, how))
    if how == "nan":
        assert found.broken
    else:
        assert found.value is not None
        assert found.value <= probe.chance + (0.2 if probe.chance else 0.1)


def test_a_probe_is_named_in_full_in_short_or_by_its_file(tmp_path: Path) -> None:
    assert abilities.load("nli").items == abilities.load("pocket-world/abilities/nli").items
    row = {"id": "a", "prompt": "Is it?", "options": ["yes", "no", "maybe"], "gold": 1}
    own = abilities.load(str(rows_file(tmp_path, row, name="mine.jsonl")))
    assert (own.name, own.scorer, own.chance) == ("mine", "choice", pytest.approx(1 / 3))
    free = abilities.load(str(rows_file(tmp_path, {"id": "a", "prompt": "Who?", "answers": ["B. D."]}, name="w.jsonl")))
    assert (free.scorer, free.chance, free.items[0].until) == ("exact", 0.0, ("\n",))  # an answer with stops in it
    with pytest.raises(UnknownNameError, match="did you mean 'pocket-world/abilities/nli'"):
        abilities.load("pocket-world/abilities/nll")
    with pytest.raises(UnknownNameError, match="READER:FILE with one of boolq, conll03, gsm8k"):
        abilities.load("nothing")


def test_a_limit_takes_items_evenly_spread_over_the_file() -> None:
    whole, part = abilities.load("nli"), abilities.load("nli", 10)
    step = len(whole.items) // 10
    assert part.items == whole.items[::step]
    assert abilities.load("nli", 10**6).items == whole.items
    assert len(abilities.load("nli", 7).items) == 7
    with pytest.raises(UsageError, match="limit 0"):
        abilities.load("nli", 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "options": ["a", "b"]}, "nli.jsonl:1: field 'gold' is None"),
        ({"prompt": "p", "options": ["a", "b"], "gold": 2}, "nli.jsonl:1: gold 2 is not the index"),
        ({"prompt": "p", "options": ["a", "b"], "gold": True}, "field 'gold' is True"),
        ({"prompt": "p"}, "field 'options' must be there, or 'answers'"),
        ({"prompt": "p", "options": ["a", "b"], "gold": 0, "answers": ["a"]}, "and not both"),
        ({"prompt": "p", "answers": ["a"]}, "must have options to be scored by 'choice'"),
        ({"prompt": "", "options": ["a", "b"], "gold": 0}, "field 'prompt' is empty"),
        ({"prompt": "p", "options": ["a", ""], "gold": 0}, "is empty"),
        ({"prompt": "p", "option": ["a", "b"], "gold": 0}, "field 'option' is not known"),
        ({"prompt": "p", "options": ["a"], "gold": 0}, "1 options"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        abilities.load(str(rows_file(tmp_path, row)))
    assert message in str(caught.value)


def test_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "p", "options": ["x", "y"], "gold": 0}
    with pytest.raises(DataError, match=r"nli\.jsonl:2: the id 'a' is already that of nli\.jsonl:1"):
        abilities.load(str(rows_file(tmp_path, row, row)))


def test_the_score_of_a_probe_does_not_depend_on_the_batch_size() -> None:
    handle = tiny.handle("llama")
    for name in ("nli", "open_qa"):
        probe = abilities.load(name, 9)
        assert probe(handle, 1) == probe(handle, 4) == probe(handle, 64)


def test_further_figures_stand_behind_the_probes_own(pocket: ModelHandle) -> None:
    names = {name: [one.name for one in abilities.load(name, 2).figures(pocket)] for name in ("piqa", "squad2", "nq")}
    assert names == {"piqa": ["piqa", "piqa_acc"], "squad2": ["squad2", "squad2_exact"], "nq": ["nq"]}
    assert [one.name for one in abilities.load("summarisation", 2).figures(pocket)][1:] == [
        "summarisation_rouge1", "summarisation_rouge2", "summarisation_rougeL",
    ]  # fmt: skip
