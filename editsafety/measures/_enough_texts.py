"""Reading texts until enough is known: the part of perplexity that stops early (`judging/stopping.py` has the rule)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from editsafety.engine import passes
from editsafety.judging.stopping import EnoughTexts, RatioInterval
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import token_nll

MOST_NATS = 700.0  # per token of a text; past 709.8 its perplexity is no float64


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: nats of every token, float64, by the place of the text."""

    scored: Mapping[int, Tensor]
    interval: RatioInterval | None  # where the ratio lies; None where every text was read, or one is not finite


def score_rows(handle: ModelHandle, rows: Sequence[Sequence[int]], batch_size: int) -> list[Tensor]:
    """Nats of the tokens 2..n of every row, float64 `[n - 1]` each; entered at the first edited layer."""
    return [one.double() for one in token_nll(handle, rows, batch_size=batch_size, score=passes.batch_nll)]


def read_enough(
    handle: ModelHandle, rows: Sequence[Sequence[int]], order: Sequence[int], enough: EnoughTexts, batch_size: int
) -> Reading:
    """Read rows in an order until the interval of the ratio crosses no limit, a row is not finite, or all are read.

    Portions are the same for every edited model, so what lies below an edit is run once for each of them.
    """
    scored: dict[int, Tensor] = {}
    for look in (*enough.looks, len(rows)):
        fresh = order[len(scored) : look]
        scored |= dict(zip(fresh, score_rows(handle, [rows[place] for place in fresh], batch_size), strict=True))
        nats = [float(scored[place].mean()) for place in order[:look]]
        if look == len(rows) or not all(math.isfinite(nll) for nll in nats):
            break
        if max(nats) < MOST_NATS:
            interval = enough.interval(order[:look], [math.exp(nll) for nll in nats])
            if not interval.crosses(enough.limits):
                return Reading(scored, interval)
    return Reading(scored, None)
