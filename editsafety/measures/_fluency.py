"""Fluency of a text: how much it varies, and how often it says the same again. No torch here.

Words are those of the Penn Treebank's conventions, because the published figures count them so: punctuation stands
alone, "don't" is "do" and "n't", the period of an abbreviation stays with it. The splitter is our own and small;
`tests/test_fluency.py` says how close its figures come to those of nltk, which the papers used.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

# What always stands alone. A comma or colon before a digit does not: 3,600 and 10:30 are one word.
_ALONE = re.compile(r"\.{2,}|--|``|[;@#$%&?!*()\[\]{}<>\"«»“”‘’„`‒-―]|[,:](?!\d)|''")
_OPENS = re.compile(r"(?<![^\s(\[{<])\"")  # a straight quote that opens is another word than one that closes
_CLITIC = re.compile(r"(.*[^'])(n't|'(?:s|m|d|ll|re|ve|))", re.IGNORECASE | re.DOTALL)
_OPENING = re.compile(r"'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_TWO_IN_ONE = {"cannot": 3, "gonna": 3, "gotta": 3, "gimme": 3, "lemme": 3, "wanna": 3}
_CLOSING = frozenset("\"'»”’)]}>") | {"''"}
_ABBREVIATIONS = re.compile(
    "mrs?|ms|dr|prof|st|[js]r|vs|etc|inc|co|corp|ltd|gen|col|lt|sgt|capt|rev|hon|gov|sen|rep|no|vol|fig|dept|univ|est|"
    "jan|feb|mar|apr|aug|sept|oct|nov|dec|mt|ft|rd|ave|bros|maj|adm|messrs"
)


def words(text: str) -> list[str]:
    """The words and marks of a text, in order."""
    pieces = _ALONE.sub(lambda mark: f" {mark[0]} ", _OPENS.sub("``", text)).split()
    found: list[str] = []
    for place, piece in enumerate(pieces):
        found += _split(piece, ends=_ends_sentence(pieces, place))
    return found


def ngrams(tokens: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each run of n neighbours occurs; empty for fewer than n tokens."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def entropy(counts: Counter[tuple[Hashable, ...]]) -> float | None:
    """Shannon entropy of relative frequencies, in bits: 0 when one thing is all there is, None when nothing is."""
    total = counts.total()
    if not total:
        return None
    return max(0.0, -math.fsum(count / total * math.log2(count / total) for count in counts.values()))


def generation_entropy(text: str) -> float | None:
    """((2/3) H_2 + (4/3) H_3) / 2 over words, in bits: the "generation entropy" GE of ROME (arXiv 2202.05262).

    Published tables show 100 times this: 600 to 635 for whole models, below 500 for degenerate ones. It grows with the
    length of a text, up to log2 of its n-grams, so that only texts of one length can be compared. None for a text of
    fewer than three words.
    """
    tokens = words(text)
    pairs, triples = entropy(ngrams(tokens, 2)), entropy(ngrams(tokens, 3))
    return None if pairs is None or triples is None else (2 / 3 * pairs + 4 / 3 * triples) / 2


def unigram_entropy(texts: Sequence[str]) -> float | None:
    """H_1 / log2(number of distinct words) over all texts together, 0 to 1 ("Rebuilding ROME", arXiv 2403.07175).

    Words as they use them: split at white space, lower case, periods stripped. 0 for one word said again and again,
    None without any word.
    """
    counts = ngrams([word for text in texts for word in text.lower().replace(".", "").split()], 1)
    found = entropy(counts)
    if found is None or len(counts) == 1:
        return found
    return found / math.log2(len(counts))


def repetition(tokens: Sequence[Hashable], n: int = 3) -> float | None:
    """1 - distinct / all n-grams: the share that was there before. None for fewer than n tokens."""
    counts = ngrams(tokens, n)
    return 1 - len(counts) / counts.total() if counts else None


def longest_run(tokens: Sequence[Hashable]) -> int:
    """How often at most one token follows upon itself: 1 where none does, 0 without tokens."""
    longest = run = 0
    for place, token in enumerate(tokens):
        run = run + 1 if place and token == tokens[place - 1] else 1
        longest = max(longest, run)
    return longest


def _split(piece: str, *, ends: bool) -> list[str]:
    """A piece without white space: an opening quote, the word, what hangs on it, the period that ends a sentence."""
    head: list[str] = []
    tail: list[str] = []
    if opening := _OPENING.match(piece):
        head, piece = ["'"], piece[opening.end() :]
    if ends and piece != ".":
        piece, tail = piece[:-1], ["."]
    if found := _CLITIC.fullmatch(piece):
        piece, tail = found[1], [found[2], *tail]
    if at := _TWO_IN_ONE.get(piece.lower(), 0):
        return [*head, piece[:at], piece[at:], *tail]
    return [*head, piece, *tail]


def _ends_sentence(pieces: Sequence[str], place: int) -> bool:
    """Whether the period of a piece ends a sentence: at the end of the text, or before a capital or an opening mark.

    Not behind an initial, an abbreviation of the short list, or a word with a period inside (U.S.), unless it is last.
    """
    piece = pieces[place]
    if not piece.endswith(".") or piece.endswith(".."):
        return False
    behind = place + 1
    while behind < len(pieces) and pieces[behind] in _CLOSING:
        behind += 1
    if behind == len(pieces):
        return True
    stem = piece[:-1].lower()
    known = _ABBREVIATIONS.fullmatch(stem) is not None or "." in stem or (len(stem) == 1 and stem.isalpha())
    return not known and not pieces[behind][0].islower() and pieces[behind] not in ",;:?!"
