"""The pocket world: who and what there is in it, and what is true of them.

`make_world` draws everything from one seed: the same seed gives the same facts on every machine.
"""

import random
from dataclasses import dataclass

from editsafety.pocket import names
from editsafety.pocket.relations import RELATIONS, Kind, Relation, is_subject_first

SEED = 20
# Kind of subject -> (one-token subjects, two-word subjects).
POPULATION: dict[Kind, tuple[int, int]] = {
    "person": (110, 130),
    "place": (40, 40),
    "company": (20, 45),
    "work": (20, 45),
}
# Kind of answer -> how many one-token and two-word subjects serve as answers of other subjects' relations.
SERVE_AS_ANSWERS: dict[Kind, tuple[int, int]] = {"place": (12, 2), "person": (8, 2)}

PLACE_WORDS = ["Lower", "Upper", "Port", "Fort", "Mount", "Little"]
COMPANY_WORDS = ["Foundry", "Mills", "Works", "Brothers", "Line", "Trading"]
WORK_FIRSTS = ["Amber", "Broken", "Crooked", "Distant", "Empty", "Frozen", "Gilded", "Hollow", "Patient", "Scarlet"]
WORK_SECONDS = [
    "Ladder",
    "Lantern",
    "Orchard",
    "Harbour",
    "Mirror",
    "Staircase",
    "Garden",
    "Winter",
    "Bridge",
    "Feather",
]

HOLD_OUT_MID = 0.35  # share of facts of which one mid-sentence phrasing is never trained
HOLD_OUT_FIRST = 0.08  # the same for a phrasing that begins with the subject


@dataclass(frozen=True)
class Subject:
    """Someone or something with a name."""

    # The name.
    name: str
    # What it names.
    kind: Kind
    # Claims that the name is one token, with and without a space.
    one_token: bool


@dataclass(frozen=True)
class Fact:
    """One true statement."""

    # Whom or what it is about.
    subject: Subject
    # The kind of statement.
    relation: Relation
    # What is true.
    answer: str
    # The phrasings of it that training never shows.
    held_out: frozenset[str]

    def trained_phrasings(self) -> tuple[str, ...]:
        """The phrasings that training shows, in the relation's order."""
        return tuple(phrasing for phrasing in self.relation.phrasings if phrasing not in self.held_out)

    def prompt(self, phrasing: str) -> str:
        """The phrasing filled with the subject, up to just before the answer."""
        return phrasing.replace("{}", self.subject.name)

    def sentence(self, phrasing: str) -> str:
        """The whole statement, with its full stop."""
        return f"{self.prompt(phrasing)} {self.answer}."


@dataclass(frozen=True)
class World:
    """All subjects, all facts and, per relation, every answer that occurs."""

    seed: int
    subjects: tuple[Subject, ...]
    facts: tuple[Fact, ...]
    answers: dict[str, tuple[str, ...]]

    def one_token_names(self) -> list[str]:
        """Names that must be a single token, both at the start of a text and after a space."""
        return [subject.name for subject in self.subjects if subject.one_token]

    def facts_of(self, relation: str) -> list[Fact]:
        """The facts of one relation, in the world's order."""
        return [fact for fact in self.facts if fact.relation.name == relation]


def make_world(seed: int = SEED) -> World:
    """The world of `seed`; every draw comes from it."""
    rng = random.Random(f"pocket-world {seed}")
    subjects = _subjects(rng)
    answers = {relation.name: _answers(relation, subjects) for relation in RELATIONS}
    facts = [fact for relation in RELATIONS for fact in _facts(relation, subjects, answers[relation.name], rng)]
    return World(seed, tuple(subjects), tuple(facts), answers)


def _subjects(rng: random.Random) -> list[Subject]:
    singles = iter(names.combine(names.SINGLE_ONSETS, names.SINGLE_CODAS, rng))
    given = names.combine(names.GIVEN_ONSETS, names.GIVEN_CODAS, rng)[:24]
    family = names.combine(names.FAMILY_ONSETS, names.FAMILY_CODAS, rng)
    people, places, firms = family[:52], family[52:62], family[62:74]
    two_words: dict[Kind, list[str]] = {
        "person": names.pairs(given, people, POPULATION["person"][1], rng),
        "place": names.pairs(PLACE_WORDS, places, POPULATION["place"][1], rng),
        "company": names.pairs(firms, COMPANY_WORDS, POPULATION["company"][1], rng),
        "work": names.pairs(WORK_FIRSTS, WORK_SECONDS, POPULATION["work"][1], rng),
    }
    subjects: list[Subject] = []
    for kind, (one_token, _) in POPULATION.items():
        subjects += [Subject(next(singles), kind, True) for _ in range(one_token)]
        subjects += [Subject(name, kind, False) for name in two_words[kind]]
    return subjects


def _answers(relation: Relation, subjects: list[Subject]) -> tuple[str, ...]:
    if relation.targets_are is None:
        return relation.targets
    one_token, two_words = SERVE_AS_ANSWERS[relation.targets_are]
    of_kind = [subject for subject in subjects if subject.kind == relation.targets_are]
    singles = [subject.name for subject in of_kind if subject.one_token]
    longer = [subject.name for subject in of_kind if not subject.one_token]
    return (*singles[:one_token], *longer[:two_words])


def _facts(relation: Relation, subjects: list[Subject], answers: tuple[str, ...], rng: random.Random) -> list[Fact]:
    """One fact per subject of the relation's kind; answers are dealt evenly, so that every fact has neighbours."""
    of_kind = [subject for subject in subjects if subject.kind == relation.kind]
    hand = [answers[place % len(answers)] for place in range(len(of_kind))]
    rng.shuffle(hand)
    return [
        Fact(subject, relation, answer, _held_out(relation, rng)) for subject, answer in zip(of_kind, hand, strict=True)
    ]


def _held_out(relation: Relation, rng: random.Random) -> frozenset[str]:
    """Held out per subject, never a whole phrasing: words that training never saw would ruin the base perplexity."""
    first = [phrasing for phrasing in relation.phrasings if is_subject_first(phrasing)]
    middle = [phrasing for phrasing in relation.phrasings if not is_subject_first(phrasing)]
    chosen: set[str] = set()
    if rng.random() < HOLD_OUT_MID:
        chosen.add(rng.choice(middle))
    if rng.random() < HOLD_OUT_FIRST:
        chosen.add(rng.choice(first))
    return frozenset(chosen)
