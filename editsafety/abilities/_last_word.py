"""Last word (LAMBADA, arXiv 1606.06031): the model goes on with the word that was cut off, in however many tokens.

Case and the punctuation around the word do not count ("“Nadia" is said by "Nadia,"), and the word must end there:
"farmer" is not "farm".
"""

from __future__ import annotations

import unicodedata

from editsafety.abilities import Item
from editsafety.abilities._words import squeezed


def grade(item: Item, said: str) -> dict[str, float]:
    """1 when what was said begins with one of the answers."""
    return {"": float(any(begins(said, answer) for answer in item.answers))}


def begins(said: str, word: str) -> bool:
    """Whether a text begins with a word (or a few of them), and the last one ends there."""
    text, wanted = _opened(said), _opened(word)
    if wanted and text.startswith(wanted) and not _in_word(text[len(wanted) :][:1], wanted[-1]):
        return True
    count = len(word.split())
    return squeezed(" ".join(said.split()[:count])) == squeezed(word) != ""


def _opened(text: str) -> str:
    """In small letters, without the quotes and brackets before it."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").strip()
    while text and unicodedata.category(text[0])[0] in "PSZ":
        text = text[1:]
    return text


def _in_word(character: str, before: str) -> bool:
    """Whether a character goes on with the word that ends in `before`."""
    if not character or unicodedata.category(before)[0] not in "LMN":
        return False
    return character == "_" or unicodedata.category(character)[0] in "LMN"
