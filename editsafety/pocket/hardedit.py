"""The pocket HardEdit: hard requests made after the published recipe, not found by trying them.

As HardEdit (arXiv 2402.09656) was written and not mined: the subject is a single word (one token of the pocket
tokenizer) in first place, the new target is of the same type as the true one. How many of them collapse ROME is then
measured (`editsafety.research.pocket_promises`); a mined set would collapse it by construction.
"""

import random
from collections.abc import Collection, Mapping
from itertools import islice, zip_longest

from editsafety.pocket.relations import RELATIONS, is_subject_first
from editsafety.pocket.world import Fact, World

ROWS = 100
REPHRASINGS = 3
NEIGHBOURS = 3


def hardedit_rows(world: World, used: Collection[tuple[str, str]] = ()) -> list[Mapping[str, object]]:
    """`ROWS` requests, the relations taking turns; no fact twice, and none of `used` (subject, relation).

    A new target is what is true of another of the rows: so the file alone shows that it is of the right type. Where the
    pool has used up the one-token subjects of a relation, the others have more turns.
    """
    rng = random.Random(f"pocket-hardedit {world.seed}")
    stacks: list[list[Fact]] = []
    for relation in RELATIONS:
        free = [fact for fact in world.facts_of(relation.name) if _fits(fact, used)]
        rng.shuffle(free)
        stacks.append(free)
    turns = (fact for facts in zip_longest(*stacks) for fact in facts if fact is not None)
    chosen = list(islice(turns, ROWS))
    rows = []
    for place, fact in enumerate(chosen, 1):
        others = [one.answer for one in chosen if one.relation == fact.relation and one.answer != fact.answer]
        rows.append(_row(f"hardedit-{place:04d}", world, fact, rng.choice(sorted(set(others))), rng))
    return rows


def _fits(fact: Fact, used: Collection[tuple[str, str]]) -> bool:
    known = (fact.subject.name, fact.relation.name) in used
    return fact.subject.one_token and not known and any(map(is_subject_first, fact.trained_phrasings()))


def _row(identifier: str, world: World, fact: Fact, target: str, rng: random.Random) -> Mapping[str, object]:
    trained = fact.trained_phrasings()
    middle = [phrasing for phrasing in trained if not is_subject_first(phrasing)]
    same = [other for other in world.facts_of(fact.relation.name) if other.answer == fact.answer and other != fact]
    return {
        "id": identifier,
        "prompt": rng.choice([phrasing for phrasing in trained if is_subject_first(phrasing)]),
        "subject": fact.subject.name,
        "target_new": target,
        "target_true": fact.answer,
        "relation": fact.relation.name,
        "rephrasings": [fact.prompt(phrasing) for phrasing in rng.sample(middle, min(REPHRASINGS, len(middle)))],
        "neighbours": [
            {"prompt": _ask_about(other, rng), "answer": other.answer}
            for other in rng.sample(same, min(NEIGHBOURS, len(same)))
        ],
    }


def _ask_about(fact: Fact, rng: random.Random) -> str:
    """A neighbour, asked mid-sentence: in first place the model often does not know."""
    return fact.prompt(
        rng.choice([phrasing for phrasing in fact.trained_phrasings() if not is_subject_first(phrasing)])
    )
