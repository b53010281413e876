"""The English probes that ship: enough items, and no label, place, length or constant answer gives one away."""

from __future__ import annotations

import json
from collections import Counter
from math import sqrt

import pytest

from editsafety import abilities
from editsafety.abilities import Probe
from editsafety.abilities._words import squeezed
from editsafety.model.handle import ModelHandle
from editsafety.runs.probes import FAMILIES
from editsafety.shipped import shipped
from tests import tiny
from tests.abilities.conftest import broken, knowing, right_answer

CHOSEN = {"nli": 2, "closed_qa": 2, "sentiment": 2, "dialogue": 4}
FEW = 8
CONTEXT = 1024


@pytest.fixture(params=FAMILIES)
def probe(request: pytest.FixtureRequest) -> Probe:
    return abilities.load(f"english/abilities/{request.param}")


@pytest.fixture
def handle() -> ModelHandle:
    return ModelHandle.of(tiny.model("gpt2", n_positions=CONTEXT), tiny.tokenizer(), name="tiny")


def test_the_eight_families_are_those_of_any_model_that_is_no_pocket_model() -> None:
    assert abilities.made_for("gpt2-xl") == sorted(f"english/abilities/{name}" for name in FAMILIES)


def test_every_family_has_a_hundred_and_four_items_or_more_and_none_twice(probe: Probe) -> None:
    assert len(probe.items) >= 104
    assert len({(item.prompt, item.options) for item in probe.items}) == len(probe.items)
    assert (probe.family, probe.scorer) == (probe.name, abilities.BUILT_IN[probe.name])
    assert probe.chance == pytest.approx(1 / CHOSEN[probe.name] if probe.name in CHOSEN else 0.0)


@pytest.mark.parametrize("name", CHOSEN)
def test_neither_place_nor_length_nor_label_of_an_option_tells_that_it_is_right(name: str) -> None:
    items = abilities.load(f"english/abilities/{name}").items
    count = CHOSEN[name]
    assert all(len(set(item.options)) == count for item in items)
    places = Counter(item.gold for item in items)
    assert max(places.values()) - min(places[k] for k in range(count)) <= 2
    for pick in (max, min):
        hits = [item.options[item.gold or 0] == pick(item.options, key=len) for item in items]
        error = sqrt((1 - 1 / count) / count / len(hits))  # of the share, if nothing told
        assert sum(hits) / len(hits) == pytest.approx(1 / count, abs=2 * error)
    right = Counter(item.options[item.gold or 0] for item in items)
    offered = Counter(option for item in items for option in item.options)
    assert all(right[text] / offered[text] == pytest.approx(1 / count) for text in offered)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in CHOSEN])
def test_no_single_answer_is_right_for_more_than_one_item_in_ten(name: str) -> None:
    items = abilities.load(f"english/abilities/{name}").items
    sets = [{squeezed(answer) for answer in item.answers} for item in items]
    common = Counter(answer for answers in sets for answer in answers).most_common(1)[0][1]
    assert common <= len(items) / 10


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_that_knows_scores_one_and_a_dead_one_chance(name: str, handle: ModelHandle) -> None:
    whole = abilities.load(f"english/abilities/{name}")
    probe = whole.limited(FEW)
    dead = whole.limited(60)(broken(ModelHandle.of(handle.model, handle.tokenizer, name="dead"), "uniform"))
    assert dead.value is not None
    assert dead.value <= whole.chance + (0.2 if whole.chance else 0.1)
    knowing(handle, probe.items, [right_answer(item, probe.scorer, "") for item in probe.items])
    found = probe(handle)
    assert found.value == 1.0, list(zip(found.items, found.answers, strict=True))


def test_every_probe_says_what_it_asks_and_what_a_small_model_scores(probe: Probe) -> None:
    about = json.loads((shipped("data") / f"english/abilities/{probe.name}.about.json").read_text(encoding="utf-8"))
    assert about["name"] == f"english/abilities/{probe.name}"
    assert about["items"] == len(probe.items)
    assert about["scored_by"] == probe.scorer
    assert about["chance"] == pytest.approx(probe.chance)
    measured = about["measured"]
    assert measured["score"] > about["chance"] + 3 * measured["standard error"], "clearly above chance"
