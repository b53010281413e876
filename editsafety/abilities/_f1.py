"""SQuAD's F1: overlap of words with the best of the known answers (arXiv 1806.03822), with exact match beside it.

An item without answers, or whose only answer is "unknown", is unanswerable: saying so scores 1, everything else 0.
Unlike in the official script an empty answer is no abstention: a model that has nothing to say any more must not score
half of SQuAD 2.
"""

from __future__ import annotations

from collections import Counter

from editsafety.abilities import Item
from editsafety.abilities._words import abstains, readings, same, words


def grade(item: Item, said: str) -> dict[str, float]:
    """F1 of the best reading with the best answer, and `exact`."""
    texts = readings(said)
    if all(abstains(answer) for answer in item.answers):
        silent = float(any(abstains(text) for text in texts))
        return {"": silent, "exact": silent}
    pairs = [(text, answer) for text in texts for answer in item.answers]
    match = any(same(text, answer) for text, answer in pairs)
    return {"": 1.0 if match else max(overlap(text, answer) for text, answer in pairs), "exact": float(match)}


def overlap(said: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the words, repeated ones counted as often as they stand."""
    left, right = words(said), words(answer)
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right)) if shared else 0.0
