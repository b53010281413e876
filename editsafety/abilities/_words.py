"""When two answers are the same: the normalisation of SQuAD, and which parts of what was said are the answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

ABSTENTIONS = frozenset(
    ("unknown", "unanswerable", "noanswer", "notanswerable", "cannotbeanswered", "none", "notmentioned", "notgiven")
)
_LEAD = re.compile(r"^\W*(the\s+)?((final|correct|right)\s+)?answer(\s+is|\s*:)\s*:?\s*", re.IGNORECASE)
_END = re.compile(r"[.!?;](?=\s|$)|\n")


def normalised(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces.

    Punctuation is that of Unicode, not only of ASCII. What would leave nothing is not done: "The The" stays a band, and
    "A" a grade.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    bare = " ".join("".join(_kept(text)).split())
    without = " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
    return without or bare or text.strip(" .")


def squeezed(text: str) -> str:
    """The normalised text without its spaces: tokenised data writes "Ice - T" and "May 18 , 2018"."""
    return normalised(text).replace(" ", "")


def words(text: str) -> list[str]:
    """The words of the normalised text."""
    return normalised(text).split()


def readings(said: str) -> tuple[str, ...]:
    """What of a text may be the answer: its first line, and the line up to the end of each of its sentences, with and
    without "The answer is" before it. A model that is right and then goes on has still given the answer.
    """
    line = said.strip().split("\n")[0].strip()
    found = [line, *(line[: end.start()] for end in _END.finditer(line))]
    found += [text[lead.end() :] for text in found if (lead := _LEAD.match(text))]
    return tuple(dict.fromkeys(text for text in found if text.strip())) or ("",)


def abstains(text: str) -> bool:
    """Whether a text says that there is no answer. Saying nothing is no abstention: a dead model says nothing too."""
    return squeezed(text) in ABSTENTIONS


def same(said: str, answer: str) -> bool:
    """Whether two texts are the same answer: equal when normalised, whatever spaces stand in them."""
    return squeezed(said) == squeezed(answer) != ""


def _kept(text: str) -> Iterator[str]:
    for character in text:
        if unicodedata.category(character)[0] not in "PS":
            yield character
