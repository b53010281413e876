"""CoNLL-2003 (arXiv cs/0306050): which names does a sentence hold? F1 of the names that the model lists.

The layout is the shared task's: one word a line with its tag last, sentences apart by a blank line, `-DOCSTART-` lines
between documents. Tags are BIO in either dialect. The file that "Model Editing Harms General Abilities" publishes as
its test set is the development set (3,250 sentences, 5,942 names). Kinds of names are not asked for, and a sentence
without names (645 of them) is right when the model says "none".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import text_of
from editsafety.errors import DataError

TOKENS = 10  # as published, where the names need no more
Tagged = tuple[str, str]  # a word and its tag


class Conll03:
    """A sentence is an item."""

    family: ClassVar[str] = "ner"
    scorer: ClassVar[str] = "entities"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every sentence."""
        return tuple(
            Item(
                f"conll03-{number:04d}",
                f"Sentence: {' '.join(word for word, _ in sentence)}\n"
                'The names of people, places, organisations and the like in it, separated by commas, or "none":',
                answers=tuple(dict.fromkeys(entities(sentence))),
                tokens=TOKENS,
                source=where,
            )
            for number, (where, sentence) in enumerate(_sentences(path), 1)
        )


def entities(sentence: list[Tagged]) -> Iterator[str]:
    """The names of a sentence, in order. A name begins at B, and at an I of another kind than the tag before."""
    words: list[str] = []
    kind = ""
    for word, tag in (*sentence, ("", "O")):
        mark, _, this = tag.partition("-")
        if words and (mark != "I" or this != kind):
            yield " ".join(words)
            words = []
        if mark != "O":
            words.append(word)
        kind = this


def _sentences(path: Path) -> Iterator[tuple[str, list[Tagged]]]:
    sentence: list[Tagged] = []
    start = 0
    for number, line in enumerate((*text_of(path).split("\n"), ""), 1):
        parts = line.split()
        if parts and parts[0] != "-DOCSTART-":
            if len(parts) < 2 or not (parts[-1] == "O" or parts[-1][:2] in ("B-", "I-")):
                raise DataError(
                    f"{path.name}:{number}: expected a word and, last, its tag (O, B-..., I-...): {line!r}."
                )
            start = start if sentence else number
            sentence.append((parts[0], parts[-1]))
        elif sentence:
            yield f"{path.name}:{start}", sentence
            sentence = []


READER = Conll03()
