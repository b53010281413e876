"""ROUGE (Lin 2004, https://aclanthology.org/W04-1013): n-gram recall and precision of a summary as an F measure.

Words are runs of letters and digits in lower case, without stemming (the default of the package rouge_score). The
score is the mean of ROUGE-1, ROUGE-2 and ROUGE-L, as in "Model Editing Harms General Abilities"; ROUGE-L takes the
whole text as one sentence. A text of one word has no pairs: ROUGE-2 is then 1 if both texts are the same, else 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from editsafety.abilities import Item


def grade(item: Item, said: str) -> dict[str, float]:
    """The mean of the three for the best of the reference summaries, and each of them for that one."""
    best = max((rouge(said, answer) for answer in item.answers), key=lambda found: sum(found))
    return {"": sum(best) / 3, "rouge1": best[0], "rouge2": best[1], "rougeL": best[2]}


def rouge(said: str, reference: str) -> tuple[float, float, float]:
    """F measures of ROUGE-1, ROUGE-2 and ROUGE-L."""
    left, right = _words(said), _words(reference)
    if not left or not right:
        return 0.0, 0.0, 0.0
    if left == right:
        return 1.0, 1.0, 1.0
    common = longest_common(left, right)
    return _grams(left, right, 1), _grams(left, right, 2), 2 * common / (len(left) + len(right))


def longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence of two lists of words."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for place, other in enumerate(right, 1):
            above = row[place]
            row[place] = before + 1 if word == other else max(row[place], row[place - 1])
            before = above
    return row[-1]


def _grams(left: Sequence[str], right: Sequence[str], n: int) -> float:
    counts = [Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for text in (left, right)]
    total = sum(counts[0].values()) + sum(counts[1].values())
    return 2 * sum((counts[0] & counts[1]).values()) / total if total else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
