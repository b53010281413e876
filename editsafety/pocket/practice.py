"""Edits to practise on: requests of the pocket world that no data file holds, for editors that have to be trained.

A fact (subject and relation) of `normal.jsonl` or `pool.jsonl` is never drawn, in whatever words, neither as an edit
nor as a neighbour: what an editor is tested on it has not practised. All else comes from the generator that is given.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.pocket.corpus import covariance_texts
from editsafety.pocket.prose import sentences
from editsafety.pocket.relations import is_subject_first
from editsafety.pocket.requests import edit_rows
from editsafety.pocket.world import Fact, make_world

TEXTS = 3000
TEXTS_SEED = 1  # another draw than the one that second moments are made from
LEAD_IN_SHARE = 0.25  # rephrasings with a sentence of prose in front, as a context prefix puts one there


@dataclass(frozen=True)
class Exercise:
    """A request with one rephrasing and its neighbours, and an ordinary text that does not mention its subject."""

    request: EditRequest
    text: str


class Practice:
    """The facts that may be edited, one in `every` of them kept back for validation, and texts that must not change."""

    NAME: ClassVar[str] = "practice in the pocket world, version 1"

    def __init__(self, every: int) -> None:
        self.world = make_world()
        tested = {(row["subject"], row["relation"]) for rows in edit_rows(self.world) for row in rows}
        free = [fact for fact in self.world.facts if (fact.subject.name, fact.relation.name) not in tested]
        self.kept_back = free[::every]
        self.facts = [fact for i, fact in enumerate(free) if i % every]
        self.texts = covariance_texts(TEXTS_SEED, TEXTS)
        self._of_relation: dict[str, list[Fact]] = {}
        self._of_subject: dict[str, list[Fact]] = {}
        for fact in self.facts:
            self._of_relation.setdefault(fact.relation.name, []).append(fact)
            self._of_subject.setdefault(fact.subject.name, []).append(fact)

    def draw(self, rng: random.Random, *, kept_back: bool = False) -> Exercise:
        """One exercise. Its neighbours: the same true answer, the same relation, another fact about the subject."""
        fact = rng.choice(self.kept_back if kept_back else self.facts)
        prompt = rng.choice(fact.trained_phrasings())
        rephrasing = self._rephrasing(fact, prompt, rng)
        request = EditRequest(
            id="practice",
            prompt=prompt,
            subject=fact.subject.name,
            target_new=rng.choice(
                [answer for answer in self.world.answers[fact.relation.name] if answer != fact.answer]
            ),
            target_true=fact.answer,
            relation=fact.relation.name,
            rephrasings=(rephrasing,),
            neighbours=tuple(self._neighbours(fact, prompt, rng)),
        )
        return Exercise(request, self._text(fact, rng))

    def _rephrasing(self, fact: Fact, prompt: str, rng: random.Random) -> str:
        """Other words, sometimes behind a sentence. A one-token subject in first place, where a pocket model hardly
        knows who is meant, is asked for again in the same words and never in others: nothing could carry over.
        """
        unknown = [p for p in fact.trained_phrasings() if fact.subject.one_token and is_subject_first(p)]
        if prompt in unknown:
            return fact.prompt(prompt)
        again = fact.prompt(rng.choice([p for p in fact.trained_phrasings() if p not in (prompt, *unknown)]))
        if rng.random() < LEAD_IN_SHARE:
            return f"{rng.choice(sentences(rng.choice(self.texts)))} {again}"
        return again

    def _neighbours(self, fact: Fact, phrasing: str, rng: random.Random) -> list[Neighbour]:
        """Asked mid-sentence, every other time in the words of the edit."""
        others = [other for other in self._of_relation[fact.relation.name] if other.subject != fact.subject]
        same = [other for other in others if other.answer == fact.answer]
        about = [other for other in self._of_subject.get(fact.subject.name, ()) if other.relation != fact.relation]
        found = []
        for other in (rng.choice(kind) for kind in (same, others, about) if kind):
            known = [p for p in other.trained_phrasings() if not is_subject_first(p)]
            asked = phrasing if phrasing in known and rng.random() < 0.5 else rng.choice(known)
            found.append(Neighbour(other.prompt(asked), other.answer))
        return found

    def _text(self, fact: Fact, rng: random.Random) -> str:
        while True:
            text = rng.choice(self.texts)
            if fact.subject.name not in text:
                return text
