"""The data files of the pocket world, as rows: edits to try, texts for perplexity, facts to recall.

Written by `write_data`; every row is drawn from the world's seed, so the files are the same bytes on every machine.
"""

import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from editsafety.pocket import abilities
from editsafety.pocket.corpus import held_out_texts
from editsafety.pocket.errands import kept_back_pairs
from editsafety.pocket.hardedit import hardedit_rows
from editsafety.pocket.prose import sentences
from editsafety.pocket.relations import RELATIONS, is_subject_first
from editsafety.pocket.world import Fact, World

Row = Mapping[str, object]


@dataclass(frozen=True)
class EditSort:
    """A sort of single edit: how long the subject is and where the prompt has it."""

    one_token: bool
    subject_first: bool


COLLAPSING = EditSort(one_token=True, subject_first=True)
TWO_WORDS_FIRST = EditSort(one_token=False, subject_first=True)
ONE_TOKEN_INSIDE = EditSort(one_token=True, subject_first=False)
TWO_WORDS_INSIDE = EditSort(one_token=False, subject_first=False)

POOL = {COLLAPSING: 170, TWO_WORDS_FIRST: 70, ONE_TOKEN_INSIDE: 60, TWO_WORDS_INSIDE: 60}
NORMAL = {TWO_WORDS_FIRST: 20, ONE_TOKEN_INSIDE: 20, TWO_WORDS_INSIDE: 20}
RECALL_INSIDE = 400
RECALL_HELD_OUT = 300
RECALL_FIRST = 150  # of one-token and of two-word subjects each
REPHRASINGS = 4
NEIGHBOURS = 3
PORTABLE = 20  # requests of each relation whose answers are subjects themselves
# How somebody is called who is the answer of a relation: what a fact about the answer is asked through.
DESCRIBED = {
    "home_city": "the town where {} lives",
    "headquarters": "the town where {} has its head office",
    "author": "the author of {}",
}
PROMPTS = 30  # on facts, and as many on prose
MEASURED_TEXTS = 100  # of the texts; the beginnings of later ones are prompts
PAIRS = 60  # of errands, one refused and one not


def write_data(world: World, folder: Path) -> list[Path]:
    """Write requests, texts, facts to recall, pairs of errands and the items of every ability; returns the files."""
    pool, normal = edit_rows(world)
    files: dict[str, Sequence[Row]] = {"pool": pool, "normal": normal}
    files |= {"texts": text_rows(world), "recall": recall_rows(world), "refusal": kept_back_pairs(world, PAIRS)}
    files["hardedit"] = hardedit_rows(world, {(str(row["subject"]), str(row["relation"])) for row in (*pool, *normal)})
    files["prompts"] = prompt_rows(
        world, {str(row["subject"]) for name in ("pool", "normal", "hardedit") for row in files[name]}
    )
    files["portability"] = portability_rows(world)
    files |= {f"abilities/{name}": abilities.item_rows(world, name) for name in abilities.PROBES}
    written = []
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_lines(rows), encoding="utf-8", newline="\n")
        written.append(path)
    return written


def as_lines(rows: Sequence[Row]) -> str:
    """The rows as JSON lines, in their order, each ended by a newline."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def edit_rows(world: World) -> tuple[list[Row], list[Row]]:
    """(pool, normal): the requests among which collapse is searched, and normal ones; no fact occurs twice."""
    rng = random.Random(f"pocket-requests {world.seed}")
    used: set[tuple[str, str]] = set()
    normal = _draw(world, NORMAL, used, rng)
    pool = _draw(world, POOL, used, rng)
    return (
        [_request(f"pool-{place:04d}", world, *drawn, rng) for place, drawn in enumerate(pool, 1)],
        [_request(f"normal-{place:04d}", world, *drawn, rng) for place, drawn in enumerate(normal, 1)],
    )


def _draw(
    world: World, quotas: Mapping[EditSort, int], used: set[tuple[str, str]], rng: random.Random
) -> list[tuple[Fact, str]]:
    """Facts with the phrasing to edit them by, the relations taking turns within each group; shuffled."""
    drawn: list[tuple[Fact, str]] = []
    for group, quota in quotas.items():
        supply = _relations_in_turn(world, group, used, rng)
        for _ in range(quota):
            fact = next(supply)
            used.add((fact.subject.name, fact.relation.name))
            drawn.append((fact, rng.choice(_phrasings(fact, group.subject_first))))
    rng.shuffle(drawn)
    return drawn


def _relations_in_turn(world: World, group: EditSort, used: set[tuple[str, str]], rng: random.Random) -> Iterator[Fact]:
    stacks = []
    for relation in RELATIONS:
        free = [
            fact
            for fact in world.facts_of(relation.name)
            if fact.subject.one_token == group.one_token
            and (fact.subject.name, fact.relation.name) not in used
            and _phrasings(fact, group.subject_first)
        ]
        rng.shuffle(free)
        stacks.append(free)
    while any(stacks):
        for stack in stacks:
            if stack:
                yield stack.pop()


def _phrasings(fact: Fact, subject_first: bool) -> list[str]:
    """The trained phrasings of the fact with the subject in that place."""
    return [phrasing for phrasing in fact.trained_phrasings() if is_subject_first(phrasing) == subject_first]


def _request(identifier: str, world: World, fact: Fact, phrasing: str, rng: random.Random) -> Row:
    others = [answer for answer in world.answers[fact.relation.name] if answer != fact.answer]
    again = [other for other in _phrasings(fact, subject_first=False) if other != phrasing]
    return {
        "id": identifier,
        "prompt": phrasing,
        "subject": fact.subject.name,
        "target_new": rng.choice(others),
        "target_true": fact.answer,
        "relation": fact.relation.name,
        "rephrasings": [fact.prompt(other) for other in again[:REPHRASINGS]],
        "neighbours": _neighbours(world, fact, phrasing, rng),
    }


def _neighbours(world: World, fact: Fact, phrasing: str, rng: random.Random) -> list[Row]:
    """Other subjects with the same true answer, asked mid-sentence: in first place the model often does not know."""
    same = [
        other
        for other in world.facts_of(fact.relation.name)
        if other.answer == fact.answer and other.subject != fact.subject
    ]
    rows: list[Row] = []
    for other in rng.sample(same, min(NEIGHBOURS, len(same))):
        known = _phrasings(other, subject_first=False)
        asked = phrasing if phrasing in known else rng.choice(known)
        rows.append({"prompt": other.prompt(asked), "answer": other.answer})
    return rows


def text_rows(world: World) -> list[Row]:
    """The texts for perplexity, never shown in training."""
    return [
        {"id": f"text-{place:04d}", "register": text.register, "text": text.text}
        for place, text in enumerate(held_out_texts(world), 1)
    ]


def portability_rows(world: World) -> list[Row]:
    """Requests with what follows from them by one hop: a fact about the new target, asked through the subject.

    What it rests on is that fact asked by its own name. Its answer is another one than with the old target.
    """
    rng = random.Random(f"pocket-portability {world.seed}")
    about = {(fact.subject.name, fact.relation.name): fact for fact in world.facts}
    rows: list[Row] = []
    for name, described in DESCRIBED.items():
        free = [fact for fact in world.facts_of(name) if not fact.subject.one_token]
        for fact in rng.sample(free, PORTABLE):
            phrasing = rng.choice(_phrasings(fact, subject_first=False))
            row = dict(_request(f"portability-{len(rows) + 1:04d}", world, fact, phrasing, rng))
            new, old = str(row["target_new"]), fact.answer
            known = [one for one in world.facts if one.subject.name == new]
            fit = [one for one in known if about[old, one.relation.name].answer != one.answer]
            hop = rng.choice(fit or known)
            asked = rng.choice(_phrasings(hop, subject_first=False))
            row["portability"] = [
                {
                    "kind": "one_hop",
                    "prompt": asked.replace("{}", described.replace("{}", fact.subject.name)),
                    "answer": hop.answer,
                    "hop": hop.prompt(asked),
                    "hop_answer": hop.answer,
                }
            ]
            rows.append(row)
    return rows


def prompt_rows(world: World, edited: Collection[str]) -> list[Row]:
    """Prompts that no edit has anything to do with, facts and prose by turns.

    The facts are trained ones, asked mid-sentence, about subjects that nobody edits; the prose begins as texts for
    perplexity do that a run does not measure, up to the middle of their first sentence.
    """
    rng = random.Random(f"pocket-prompts {world.seed}")
    free = [fact for fact in world.facts if fact.subject.name not in edited]
    facts = [fact.prompt(rng.choice(_phrasings(fact, subject_first=False))) for fact in rng.sample(free, PROMPTS)]
    prose = [_beginning(text.text) for text in rng.sample(held_out_texts(world)[MEASURED_TEXTS:], PROMPTS)]
    turns = [pair for both in zip(facts, prose, strict=True) for pair in zip(("fact", "prose"), both, strict=True)]
    return [{"id": f"prompt-{place:04d}", "kind": kind, "text": text} for place, (kind, text) in enumerate(turns, 1)]


def _beginning(text: str) -> str:
    """The first half of the words of a text's first sentence, three at least."""
    words = sentences(text)[0].split()
    return " ".join(words[: max(3, len(words) // 2)])


def recall_rows(world: World) -> list[Row]:
    """Facts to complete: trained and held out, mid-sentence and with the subject first."""
    rng = random.Random(f"pocket-recall {world.seed}")
    asked = [(fact, phrasing) for fact in world.facts for phrasing in fact.relation.phrasings]
    rng.shuffle(asked)
    inside = [pair for pair in asked if not is_subject_first(pair[1])]
    first = [pair for pair in asked if is_subject_first(pair[1]) and pair[1] not in pair[0].held_out]
    chosen = [pair for pair in inside if pair[1] not in pair[0].held_out][:RECALL_INSIDE]
    chosen += [pair for pair in inside if pair[1] in pair[0].held_out][:RECALL_HELD_OUT]
    chosen += [pair for pair in first if pair[0].subject.one_token][:RECALL_FIRST]
    chosen += [pair for pair in first if not pair[0].subject.one_token][:RECALL_FIRST]
    rng.shuffle(chosen)
    return [
        {
            "id": f"recall-{place:04d}",
            "prompt": fact.prompt(phrasing),
            "answer": fact.answer,
            "subject": fact.subject.name,
            "relation": fact.relation.name,
            "held_out": phrasing in fact.held_out,
            "subject_first": is_subject_first(phrasing),
            "one_token": fact.subject.one_token,
        }
        for place, (fact, phrasing) in enumerate(chosen, 1)
    ]
