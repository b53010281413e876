"""How fast: two ways to the same result, run in alternation, and how many times as fast one of them is.

A machine's load changes from second to second, so times of different minutes say little. A race is run in pairs in one
process: both ways, one after the other, the second pair the other way round. CPU time counts on a CPU (it does not
grow with what others do, only with what they do to the caches), the clock on a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from editsafety.model.meter import synchronise


def _nothing() -> None:
    """Nothing has to be made ready."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two ways to the same result."""

    slow: Callable[[], Any]
    fast: Callable[[], Any]
    # How far apart two results are, as a share of the larger one; 0 for the same bits.
    apart: Callable[[Any, Any], float]
    # Run before each way, and not timed.
    ready_slow: Callable[[], object] = _nothing
    ready_fast: Callable[[], object] = _nothing


@dataclass(frozen=True, slots=True)
class Race:
    """What the pairs of a race came to."""

    # In the order in which they were run.
    slow: tuple[float, ...]
    fast: tuple[float, ...]
    # The largest distance of two results.
    apart: float

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast, by pair."""
        return tuple(slow / fast for slow, fast in zip(self.slow, self.fast, strict=True))

    @property
    def median(self) -> float:
        """How many times as fast."""
        return statistics.median(self.ratios)

    @property
    def seconds(self) -> tuple[float, float]:
        """What the slow and the fast way take, each by its median."""
        return statistics.median(self.slow), statistics.median(self.fast)


def race(pairs: Iterable[Pair], device: torch.device, each: Callable[[], object] = _nothing) -> Race:
    """Run every pair, the slow way first in every other one. `each` is called when a pair is done."""
    slow, fast, apart = [], [], 0.0
    for number, pair in enumerate(pairs):
        ways = [(pair.ready_slow, pair.slow), (pair.ready_fast, pair.fast)]
        order = (0, 1) if number % 2 == 0 else (1, 0)
        seconds: dict[int, float] = {}
        results: dict[int, Any] = {}
        for way in order:
            ready, run = ways[way]
            ready()
            start = _now(device)
            results[way] = run()
            seconds[way] = _now(device) - start
        slow.append(seconds[0])
        fast.append(seconds[1])
        apart = max(apart, pair.apart(results[0], results[1]))
        each()
    return Race(tuple(slow), tuple(fast), apart)


def _now(device: torch.device) -> float:
    """Seconds: of the processor for a model on a CPU, of the clock, when all is done, for one on a GPU."""
    synchronise(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()
