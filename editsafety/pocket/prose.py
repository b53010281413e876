"""Text from a grammar: a register is a list of patterns, a pattern is words and `[slots]`.

`[word]` is replaced by one of the lexicon's entries for `word`, which may have slots of its own. `[x=word]` does the
same and remembers the outcome as `x`; a later `[x]` repeats it, so that a recipe stirs the flour that it began with.
Two remembered outcomes of one text differ. `[^x]` is the same with a capital letter.
"""

import random
import re

from editsafety.pocket.grammars import GRAMMARS
from editsafety.pocket.lexicon import LEXICON

_SLOT = re.compile(r"\[(\^?)(?:(\w+)=)?(\w+)\]")
_BARE_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


def registers() -> tuple[str, ...]:
    """The names of all registers, in a fixed order."""
    return tuple(GRAMMARS)


def write(register: str, rng: random.Random) -> str:
    """One text of the register: a few sentences, about 15 to 60 tokens."""
    return _BARE_ARTICLE.sub(r"\1n ", expand(rng.choice(GRAMMARS[register]), rng, {}))


def sentences(text: str) -> list[str]:
    """The text cut after full stops, question marks and their closing quotes."""
    return [part for part in re.split(r'(?<=[.?!])"?\s+', text) if part]


def expand(pattern: str, rng: random.Random, bound: dict[str, str]) -> str:
    """The pattern with all slots filled; what `[x=word]` drew is added to `bound`."""

    def fill(match: re.Match[str]) -> str:
        capital, name, word = match.groups()
        text = bound[word] if name is None and word in bound else expand(rng.choice(LEXICON[word]), rng, bound)
        if name is not None:
            while text in bound.values():
                text = expand(rng.choice(LEXICON[word]), rng, bound)
            bound[name] = text
        return text[:1].upper() + text[1:] if capital else text

    return _SLOT.sub(fill, pattern)
