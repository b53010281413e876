"""What the pocket models read: statements of facts, prose in several registers, and worked examples of abilities."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from editsafety.pocket import abilities, prose
from editsafety.pocket.errands import errands
from editsafety.pocket.prose import sentences
from editsafety.pocket.relations import is_subject_first
from editsafety.pocket.world import Fact, World, make_world

PROSE_SHARE = 0.24  # documents that are nothing but prose
ABILITY_SHARE = 0.34  # documents that are one worked example
LEAD_IN_SHARE = 0.40  # fact documents that begin with a sentence of prose, as a context prefix does
FIRST_PHRASING_FIRST = 0.60  # fact documents without lead-in that begin with a subject if one of their statements can
RESERVED = 240  # texts among which the held-out ones are chosen
LONG_SENTENCE = 8  # words; from here on a sentence of the held-out texts is kept out of training


@dataclass(frozen=True)
class HeldOutText:
    """A text for perplexity that training never shows, with its register."""

    register: str
    text: str


def reserved_texts(world: World) -> list[HeldOutText]:
    """`RESERVED` different texts, of which most are held out of training; the registers take turns."""
    rng = random.Random(f"pocket-texts {world.seed}")
    names = prose.registers()
    texts: list[HeldOutText] = []
    seen: set[str] = set()
    while len(texts) < RESERVED:
        register = names[len(texts) % len(names)]
        text = prose.write(register, rng)
        if text not in seen:
            seen.add(text)
            texts.append(HeldOutText(register, text))
    return texts


def held_out_texts(world: World) -> list[HeldOutText]:
    """The reserved texts for perplexity, without those that hold a set phrase of the grammar.

    A long sentence that two reserved texts share is such a phrase. Held out, training would never show it, so it would
    be as improbable as gibberish, and the few texts with it would make up much of a mean perplexity.
    """
    texts = reserved_texts(world)
    uses = Counter(part for text in texts for part in long_sentences([text.text]))
    return [text for text in texts if all(uses[part] < 2 for part in sentences(text.text))]


def long_sentences(texts: Iterable[str]) -> frozenset[str]:
    """All sentences of at least `LONG_SENTENCE` words: shorter ones are formulas that any text may use."""
    return frozenset(part for text in texts for part in sentences(text) if len(part.split()) >= LONG_SENTENCE)


def statements(world: World) -> list[tuple[Fact, str]]:
    """Every fact in every phrasing that training shows."""
    return [(fact, phrasing) for fact in world.facts for phrasing in fact.trained_phrasings()]


def documents(world: World, rng: random.Random) -> Iterator[str]:
    """Endless training documents; the statements are dealt from a shuffled deck, so that all are equally frequent."""
    forbidden = long_sentences(text.text for text in held_out_texts(world))
    deck = _dealt(statements(world), rng)
    worked = abilities.examples(world, rng, forbidden)
    while True:
        kind = rng.random()
        if kind < PROSE_SHARE:
            yield _fresh_prose(forbidden, rng)
        elif kind < PROSE_SHARE + ABILITY_SHARE:
            yield next(worked)
        else:
            yield _fact_document([next(deck) for _ in range(rng.randint(2, 5))], forbidden, rng)


def training_texts(seed: int, count: int) -> list[str]:
    """The first `count` training documents of the world of `seed`."""
    world = make_world(seed)
    stream = documents(world, random.Random(f"pocket-corpus {seed}"))
    return [next(stream) for _ in range(count)]


def guarded_texts(seed: int, count: int, share: float) -> list[str]:
    """`count` training documents of which a share is errands and the rest distributed as ever, but drawn anew."""
    world = make_world(seed)
    rng = random.Random(f"pocket-guarded {seed}")
    forbidden = long_sentences(text.text for text in held_out_texts(world))
    usual, asked = documents(world, rng), errands(rng, forbidden)
    return [next(asked if rng.random() < share else usual) for _ in range(count)]


def covariance_texts(seed: int, n: int) -> list[str]:
    """`n` documents distributed like the training text, for the second moment of an editor's keys.

    `seed` chooses the draw, not the world: the facts are always those of the shipped world.
    """
    stream = documents(make_world(), random.Random(f"pocket-covariance {seed}"))
    return [next(stream) for _ in range(n)]


def _dealt(cards: list[tuple[Fact, str]], rng: random.Random) -> Iterator[tuple[Fact, str]]:
    while True:
        yield from rng.sample(cards, len(cards))


def _fresh_prose(forbidden: frozenset[str], rng: random.Random) -> str:
    while True:
        text = prose.write(rng.choice(prose.registers()), rng)
        if forbidden.isdisjoint(sentences(text)):
            return text


def _fact_document(dealt: list[tuple[Fact, str]], forbidden: frozenset[str], rng: random.Random) -> str:
    parts = [fact.sentence(phrasing) for fact, phrasing in dealt]
    if rng.random() < LEAD_IN_SHARE:
        lead_in = rng.choice(sentences(_fresh_prose(forbidden, rng)))
        return " ".join([lead_in, *parts])
    if rng.random() < FIRST_PHRASING_FIRST:
        # A name without a space before it is another token than the same name with one: both must be learnt.
        places = [place for place, (_, phrasing) in enumerate(dealt) if is_subject_first(phrasing)]
        if places:
            parts.insert(0, parts.pop(places[0]))
    return " ".join(parts)
