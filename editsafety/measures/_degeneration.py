"""Whether a text has degenerated, told from its characters alone. No torch here.

The rules are those by which people who compare edited models sort broken answers out, and each has a reason here:

- one character 15 times in a row ("!!!!!!!!!!!!!!!"; a rule of a table has as many, prose has not)
- one sentence of three words or more, three times
- a stretch of 12 characters or more four times in a row, whatever it holds ("of the of the of the ...")
- 100 characters in a row of which fewer than 8 are different: English has 20 to 30 in so many. Where the share is taken
  of the whole text it falls with its length: a sound text of 600 characters has .07
- nothing at all: a model that ends every text at once is no less broken than one that never does
"""

from __future__ import annotations

import re
import zlib
from collections import Counter

RUN, SAID, WORDS = 15, 3, 3
STRETCH, LONGEST, REPEATS = 12, 120, 4
WINDOW, DIFFERENT = 100, 8

_RUN = re.compile(rf"(.)\1{{{RUN - 1}}}", re.DOTALL)
_REPEATED = re.compile(rf"(.{{{STRETCH},{LONGEST}}}?)\1{{{REPEATS - 1}}}", re.DOTALL)
_SENTENCE = re.compile(r"[^.!?\n]+")


def degeneration(text: str) -> str | None:
    """How a text has degenerated, in words; None where it has not."""
    if not text.strip():
        return "it says nothing"
    if (found := _RUN.search(text)) is not None:
        return f"one character {RUN} times in a row: {found[1]!r}"
    if (found := _REPEATED.search(text)) is not None:
        return f"the same {REPEATS} times in a row: {found[1][:40]!r}"
    sentences = Counter(" ".join(one.split()).casefold() for one in _SENTENCE.findall(text))
    for sentence, times in sentences.items():
        if times >= SAID and len(sentence.split()) >= WORDS:
            return f"one sentence {times} times: {sentence[:40]!r}"
    if any(len(set(text[at : at + WINDOW])) < DIFFERENT for at in range(len(text) - WINDOW + 1)):
        return f"fewer than {DIFFERENT} different characters in {WINDOW}"
    return None


def compression(text: str) -> float | None:
    """Bytes of the text over those of zlib's best compression of it; None for an empty one.

    About 1.3 for 400 characters of prose, past 2.4 for a text that repeats itself (the limit of Whisper, arXiv
    2212.04356). It grows with the length of a text, so only texts of about one length can be compared.
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data, 9)) if data else None
