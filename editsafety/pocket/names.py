"""Invented names, put together from syllables, so that the tokenizer can afford one token for each.

A name is one onset and one coda. The pieces are few, so byte-level BPE spends one merge on each finished name and
hardly anything on the way there.
"""

import random
from collections.abc import Sequence

SINGLE_ONSETS = [
    "Ash",
    "Bel",
    "Cor",
    "Dar",
    "Eld",
    "Fen",
    "Gar",
    "Hal",
    "Ith",
    "Jor",
    "Kel",
    "Lor",
    "Mar",
    "Nor",
    "Osk",
    "Pel",
    "Quin",
    "Ros",
    "Sel",
    "Tam",
    "Ulf",
    "Vor",
    "Wen",
    "Yar",
    "Zan",
]
SINGLE_CODAS = ["urn", "mor", "vik", "dan", "eth", "iso", "una", "ard", "olt", "ira"]

GIVEN_ONSETS = ["Ad", "Bri", "Cla", "Do", "Ev", "Fi", "Gre", "Hu", "Jo", "Li", "Mi", "Ne"]
GIVEN_CODAS = ["nno", "vela", "rrik", "sta", "mira"]

FAMILY_ONSETS = [
    "Brask",
    "Crond",
    "Drell",
    "Farn",
    "Gesk",
    "Holm",
    "Jask",
    "Krell",
    "Lund",
    "Morv",
    "Pesk",
    "Strell",
    "Trask",
    "Velm",
    "Wisk",
]
FAMILY_CODAS = ["er", "ov", "in", "ata", "ham"]

# Real words or well-known names that the syllables would spell by accident.
SPOKEN_FOR = frozenset({"Jordan", "Gareth", "Seldan", "Holmer"})


def combine(onsets: Sequence[str], codas: Sequence[str], rng: random.Random) -> list[str]:
    """Every onset with every coda, shuffled by `rng`, without the names in `SPOKEN_FOR`."""
    names = [onset + coda for onset in onsets for coda in codas if onset + coda not in SPOKEN_FOR]
    rng.shuffle(names)
    return names


def pairs(firsts: Sequence[str], seconds: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """`count` different two-word names; second words are used equally often, as far as that is possible."""
    chosen: list[str] = []
    taken: set[str] = set()
    while len(chosen) < count:
        for second in rng.sample(list(seconds), len(seconds)):
            free = [first for first in firsts if f"{first} {second}" not in taken]
            if free and len(chosen) < count:
                name = f"{rng.choice(free)} {second}"
                taken.add(name)
                chosen.append(name)
    return chosen
