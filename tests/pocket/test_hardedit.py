"""The pocket HardEdit follows the recipe, is drawn from the seed alone, and shares no fact with the other files."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

from editsafety.datasets.request import EditRequest
from editsafety.pocket.hardedit import ROWS, hardedit_rows
from editsafety.pocket.relations import RELATIONS
from editsafety.pocket.requests import edit_rows
from editsafety.pocket.world import make_world
from editsafety.research.hardcases import vetting

SHIPPED = Path(__file__).parents[2] / "data" / "pocket-world"
WORLD = make_world()


def shipped(name: str) -> list[EditRequest]:
    lines = (SHIPPED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [EditRequest.from_json(json.loads(line)) for line in lines]


def test_every_row_follows_the_recipe() -> None:
    rows = shipped("hardedit")
    assert len(rows) == ROWS
    assert vetting.vet(rows, "hardedit") == ()
    singles = set(WORLD.one_token_names())
    assert all(row.subject in singles and row.subject_first for row in rows)
    turns = Counter(row.relation for row in rows)
    assert turns.keys() <= {relation.name for relation in RELATIONS}
    assert len(turns) >= 7, "the pool has taken the few companies and works of one token; these are left"
    assert min(turns.values()) >= 10


def test_targets_are_counterfactual_and_of_the_relations_own_answers() -> None:
    facts = {(fact.subject.name, fact.relation.name): fact for fact in WORLD.facts}
    for row in shipped("hardedit"):
        fact = facts[row.subject, row.relation]
        assert row.target_true == fact.answer != row.target_new
        assert row.target_new in WORLD.answers[row.relation]
        assert row.prompt in fact.trained_phrasings(), "what the model never saw is no fact that it knows"


def test_no_fact_is_in_the_pool_or_among_the_normal_ones() -> None:
    others = {(row.subject, row.relation) for name in ("pool", "normal") for row in shipped(name)}
    assert not others & {(row.subject, row.relation) for row in shipped("hardedit")}


def test_rows_depend_on_the_world_and_on_what_is_used_alone() -> None:
    used = {(str(row["subject"]), str(row["relation"])) for rows in edit_rows(WORLD) for row in rows}
    random.seed(1)
    once = hardedit_rows(WORLD, used)
    random.seed(2)
    assert hardedit_rows(WORLD, used) == once
    assert [EditRequest.from_json(row) for row in once] == shipped("hardedit")
    first = (str(once[0]["subject"]), str(once[0]["relation"]))
    again = hardedit_rows(WORLD, used | {first})
    assert first not in {(row["subject"], row["relation"]) for row in again}
