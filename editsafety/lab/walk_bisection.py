"""Bisection: which of several edits broke the model, from a few perplexities. No torch here."""

from __future__ import annotations

from collections.abc import Callable


def crossing(
    count: int, ratio: Callable[[int], float], *, limit: float, fine: float, broken: float
) -> tuple[int, float, float]:
    """The number k of the edit that takes the model past the limit, its ratio before that edit, and after it.

    `ratio(k)` is that of the model with the first k of `count` edits on the last good state; `fine` is ratio(0), not
    past the limit, `broken` is ratio(count), past it (or no number). About log2(count) of them are asked for.

    Guaranteed: ratio(k - 1) is within the limit and ratio(k) is not. It is the *first* such k, if within these edits
    the model, once broken, stays broken; perplexity that falls again may hide an earlier one.
    """
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        found = ratio(middle)
        if found <= limit:
            low, fine = middle, found
        else:
            high, broken = middle, found
    return high, fine, broken
