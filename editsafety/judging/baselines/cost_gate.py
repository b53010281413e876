"""Cost gate: whether edits became dearer than a limit allows, and whether the cases show it. No torch here."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from editsafety.judging.baselines.baseline import AcceptedBlock
from editsafety.judging.baselines.costs import REPEATED, AcceptedCosts, CostLimit
from editsafety.judging.baselines.paired import fewest_lost, median_ratio_interval
from editsafety.numbers import exact
from editsafety.runs.schedule import KINDS

KIND_WORDS = {"single": "single edits", REPEATED: "one edit again and again"}


@dataclass(frozen=True, slots=True)
class CostFinding:
    """What came of one limit on one kind of schedule: `worse` and `shown`, or why nothing can be said (`refused`)."""

    limit: CostLimit
    sentence: str
    worse: bool = False  # past the limit
    shown: bool = False  # and past it by more than the cases scatter
    refused: bool = False  # what was asked for cannot be compared


def held_against(
    then: AcceptedBlock, now: AcceptedBlock, limits: Sequence[CostLimit], same: Collection[str]
) -> Iterator[CostFinding]:
    """Every limit, for every kind of schedule that both have, and for what both timed again and again.

    `same` are the cases that were asked the same in both runs.
    """
    ways = [(was, present) for was, present in ((then.costs, now.costs), (then.repeated, now.repeated)) if present]
    for limit in limits:
        reasons = [_incomparable(was, present, limit) for was, present in ways]
        found = [
            one
            for (was, present), reason in zip(ways, reasons, strict=True)
            if was is not None and not reason
            for kind in (*KINDS, REPEATED)
            if (one := _of_kind(was, present, limit, kind, same, now.name)) is not None
        ]
        if not found:
            reason = next(filter(None, reasons), "not measured of any case that is in both runs")
            found = [CostFinding(limit, f"{limit.name} of {now.name}: {reason}", refused=True)]
        yield from found


def _incomparable(then: AcceptedCosts | None, now: AcceptedCosts, limit: CostLimit) -> str:
    if then is None:
        return "the baseline has no costs of it; accept it with `editsafety baseline accept --costs`"
    if not limit.figure.timed:
        return ""
    if limit.absolute and not (then.machine and then.machine == now.machine):
        machines = f"{then.machine or 'an unknown machine'} in the baseline, {now.machine or 'an unknown one'} now"
        return f"seconds of two machines are not compared ({machines}); take {limit.figure.name} without `absolute-`"
    if not limit.absolute and not (then.yardstick and now.yardstick):
        where = "the baseline" if not then.yardstick else "this run"
        return f"no forward pass of the model was timed in {where}"
    return ""


def _of_kind(
    then: AcceptedCosts, now: AcceptedCosts, limit: CostLimit, kind: str, same: Collection[str], block: str
) -> CostFinding | None:
    was, present = then.values(kind, limit.figure), now.values(kind, limit.figure)
    names = sorted(was.keys() & present.keys())  # a round's name says what was edited, a step's of which case it is
    if kind != REPEATED:
        names = [name for name in names if name.partition("#")[0] in same]
    pairs = [(was[name], present[name]) for name in names]
    if not pairs:
        return None
    where, times = f"{limit.name} of {block}, {KIND_WORDS.get(kind, kind)}", "rounds" if kind == REPEATED else "steps"
    before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
    if before == after == 0:
        return CostFinding(limit, f"{where}: 0 before and now, over {len(pairs)} {times}")
    if before <= 0:
        said = f"{where}: the median was 0 when it was accepted, so there is no share of it"
        return CostFinding(limit, said, refused=True)
    sticks: tuple[Sequence[float], Sequence[float]] = ((1.0,), (1.0,))
    if limit.figure.timed and not limit.absolute:
        sticks = then.yardstick, now.yardstick
        if limit.figure.better == "higher":  # per second becomes per forward pass
            sticks = tuple(1 / one for one in sticks[0]), tuple(1 / one for one in sticks[1])
    ratio = (after / before) / (statistics.median(sticks[1]) / statistics.median(sticks[0]))
    low, high = median_ratio_interval(pairs, sticks, Random(f"{block}:{kind}:{limit.name}"))
    worse = limit.past(ratio)
    shown = worse and len(pairs) >= fewest_lost() and limit.past(low) and limit.past(high)
    said = f"{where}: {_told(limit, before, after, sticks)}, {exact(ratio, 3)} times as much, over {len(pairs)} "
    said += f"{times} (95% interval {exact(low, 3)} to {exact(high, 3)}; {_allowed(limit)})"
    if then.machine != now.machine:
        said += f"; another machine: {then.machine or 'unknown'} before, {now.machine or 'unknown'} now"
    if worse and not shown:
        few = f"at least {fewest_lost()} {times} are needed"
        said += f"; worse, but {few if len(pairs) < fewest_lost() else f'the {times} do not show it'}"
    return CostFinding(limit, said, worse, shown)


def _told(limit: CostLimit, before: float, after: float, sticks: tuple[Sequence[float], Sequence[float]]) -> str:
    """Both medians, in what is compared and in what a clock says."""
    if not limit.figure.timed:
        return f"{before / 2**20:.1f} MiB before, {after / 2**20:.1f} now"
    unit = {"latency": "s per edit", "throughput": "edits per s", "measuring": "s to measure"}[limit.figure.name]
    clock = f"{exact(before, 3)} before, {exact(after, 3)} now ({unit})"
    if limit.absolute:
        return clock
    was, now = before / statistics.median(sticks[0]), after / statistics.median(sticks[1])
    count = "forward passes" if limit.figure.better == "lower" else "edits per forward pass"
    return f"{exact(was, 3)} {count} before, {exact(now, 3)} now ({clock})"


def _allowed(limit: CostLimit) -> str:
    percent = f"{100 * limit.share:g}%"
    return f"allowed: {percent} {'more' if limit.figure.better == 'lower' else 'less'}"
