"""Comparison: what became worse or better since a baseline was accepted, and how sure that is. No torch here."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from editsafety.judging.baselines import meaning
from editsafety.judging.baselines.baseline import AcceptedBaseline, AcceptedBlock, AcceptedCase
from editsafety.judging.baselines.cost_gate import CostFinding, held_against
from editsafety.judging.baselines.costs import CostLimit
from editsafety.judging.baselines.paired import LEVEL, fewest_lost, mcnemar, mean_interval
from editsafety.judging.baselines.tolerance import Tier, Tolerance
from editsafety.judging.report import RunReport
from editsafety.numbers import counting, exact, rate

MOST = 3  # cases that a sentence names


class Shift(Enum):
    """What became of something that is compared."""

    REGRESSED = "REGRESSED"
    IMPROVED = "IMPROVED"
    UNSHOWN = "NOT SHOWN"  # a difference that so few cases cannot show
    NEW = "NEW"
    GONE = "GONE"
    CHANGED = "CHANGED"  # of what is under test: other code, another hyperparameter


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was accepted."""

    shift: Shift
    tier: Tier
    model: str  # short names
    editor: str
    sentence: str
    figure: str = ""
    cases: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether a gate stops here."""
        return self.shift in (Shift.REGRESSED, Shift.GONE) and self.tier == "blocking"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against a baseline."""

    source: str  # where the baseline is, as the user named it
    differences: tuple[Difference, ...]
    refused: tuple[str, ...] = ()  # why blocks were not compared at all
    allowed: tuple[str, ...] = ()  # conditions that differ, and were allowed to
    compared: int = 0  # cases
    costs: tuple[str, ...] = ()  # limits on costs that hold, with their figures
    incomparable: tuple[
        str, ...
    ] = ()  # what was asked for, and cannot be held against anything: limits on costs, or all

    @property
    def held(self) -> bool:
        """Whether anything was held against what was accepted: a case, or a cost."""
        return bool(self.compared or self.costs or self.regressed or self.of(Shift.UNSHOWN))

    @property
    def regressed(self) -> tuple[Difference, ...]:
        """What stops a gate."""
        return tuple(one for one in self.differences if one.blocks)

    def of(self, shift: Shift) -> tuple[Difference, ...]:
        """The differences of one kind."""
        return tuple(one for one in self.differences if one.shift is shift)


def compare(
    baseline: AcceptedBaseline,
    report: RunReport,
    tolerances: Mapping[str, Tolerance],
    *,
    source: str,
    allow: Collection[str] = (),
    limits: Sequence[CostLimit] = (),
) -> Comparison:
    """Hold a run against what was accepted.

    Args:
        baseline: what was accepted.
        report: the run.
        tolerances: by figure: a measurement's name, or `perplexity_ratio`.
        source: where the baseline is, for sentences.
        allow: conditions (see `meaning.CONDITIONS`) that may differ.
        limits: by how much edits may have become dearer.

    Blocks whose conditions differ are refused by the name of the field and not compared. A run that has no case in
    common with the baseline is incomparable: it would pass whatever became of what was accepted.
    """
    blocks = (AcceptedBlock.of(report, *one, costs=bool(limits)) for one in report.blocks)
    now = {(block.model, block.editor): block for block in blocks}
    found: list[Difference] = []
    refused: list[str] = []
    allowed: list[str] = []
    costs: list[CostFinding] = []
    compared = 0
    for block in now.values():
        then = baseline.block(block.model, block.editor)
        if then is None:
            said = f"{block.name} is not in the baseline"
            found.append(Difference(Shift.NEW, "informative", block.model, block.editor, said))
            continue
        other = list(meaning.differing(then.conditions, block.conditions))
        wrong = [_other(block, *one) for one in other if one[0] not in allow]
        if wrong:
            refused += wrong
            continue
        allowed += [_other(block, *one) for one in other]
        pairs = _Pairs.of(then, block)
        compared += len(pairs.both)
        found += _subject(then, block)
        found += pairs.differences(tolerances)
        dearer = list(pairs.dearer(limits))
        costs += dearer
        found += [
            Difference(
                Shift.REGRESSED if one.shown else Shift.UNSHOWN, "blocking" if one.shown else "informative",
                block.model, block.editor, one.sentence, one.limit.name,
            )
            for one in dearer if one.worse
        ]  # fmt: skip
    found += [
        Difference(Shift.GONE, "warning", block.model, block.editor, f"{block.name} was accepted and was not run")
        for block in baseline.blocks
        if (block.model, block.editor) not in now
    ]
    if limits and not costs:
        nothing = "no editor on a model is in both, so no cost was compared"
        costs = [CostFinding(limit, f"{limit.name}: {nothing}", refused=True) for limit in limits]
    holds = tuple(one.sentence for one in costs if not one.worse and not one.refused)
    apart = [_apart(baseline, now.values())] if not (compared or costs or refused) and _any_case(now.values()) else []
    return Comparison(
        source, tuple(sorted(found, key=_rank)), tuple(refused), tuple(allowed), compared, holds,
        (*apart, *(one.sentence for one in costs if one.refused)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Pairs:
    """The cases of a block, then and now."""

    then: AcceptedBlock
    now: AcceptedBlock
    noise: float
    both: tuple[tuple[AcceptedCase, AcceptedCase], ...]  # the same case, asked the same
    gone: tuple[str, ...]
    new: tuple[str, ...]

    @classmethod
    def of(cls, then: AcceptedBlock, now: AcceptedBlock) -> _Pairs:
        was = {(case.id, case.request): case for case in then.cases}
        present = {(case.id, case.request): case for case in now.cases}
        both = tuple((was[name], present[name]) for name in sorted(was.keys() & present.keys()))
        gone = tuple(name for name, _ in sorted(was.keys() - present.keys()))
        new = tuple(name for name, _ in sorted(present.keys() - was.keys()))
        return cls(then, now, max(then.noise, now.noise), both, gone, new)

    def differences(self, tolerances: Mapping[str, Tolerance]) -> Iterator[Difference]:
        """Everything, by verdict, by case and by rate; nothing where only costs were asked for, then or now."""
        if not (self.then.cases and self.now.cases):
            return
        if self.gone:
            said = f"{counting(len(self.gone))} of the baseline not run: {_listed(self.gone)}"
            yield self._told(Shift.GONE, "warning", said, cases=self.gone)
        if self.new:
            said = f"{counting(len(self.new))} not in the baseline: {_listed(self.new)}"
            yield self._told(Shift.NEW, "informative", said, cases=self.new)
        yield from self._verdicts()
        for figure, tolerance in tolerances.items():
            if tolerance.each:
                yield from self._each(figure, tolerance)
            for stream in dict.fromkeys(was.stream for was, _ in self.both):
                yield from self._rate(figure, tolerance, stream)

    def dearer(self, limits: Sequence[CostLimit]) -> Iterator[CostFinding]:
        """What came of the limits on costs, over the cases that are in both."""
        return held_against(self.then, self.now, limits, {case.id for case, _ in self.both})

    def _verdicts(self) -> Iterator[Difference]:
        worse = [(a, b) for a, b in self.both if b.verdict.fails and b.verdict.severity > a.verdict.severity]
        better = [(a, b) for a, b in self.both if a.verdict.fails and b.verdict.severity < a.verdict.severity]
        for shift, moved in ((Shift.REGRESSED, worse), (Shift.IMPROVED, better)):
            kinds = dict.fromkeys((a.verdict, b.verdict) for a, b in moved)
            for kind in kinds:
                cases = tuple(b.id for a, b in moved if (a.verdict, b.verdict) == kind)
                said = f"{counting(len(cases))} {kind[0].value} before, {kind[1].value} now: {_listed(cases)}"
                yield self._told(shift, "blocking", said, "verdict", cases)

    def _each(self, figure: str, tolerance: Tolerance) -> Iterator[Difference]:
        worse: list[tuple[float, str, str]] = []
        for was, now in self.both:
            before, after = was.figures.get(figure), now.figures.get(figure)
            if before is None or figure not in now.figures:
                continue  # broken before, or not measured: nothing to compare with
            loss = math.inf if after is None else tolerance.loss(before, after)
            if not loss <= tolerance.of(before, self.noise):
                then = "not finite" if after is None else exact(after)
                worse.append((loss, now.id, f"{now.id} {exact(before)} before, {then} now"))
        if worse:
            worse.sort(key=lambda one: (-one[0], one[1]))
            said = f"{figure} of {len(worse)} of {counting(len(self.both))} worse, {worse[0][2]}"
            yield self._told(Shift.REGRESSED, tolerance.tier, said, figure, tuple(name for _, name, _ in worse))

    def _rate(self, figure: str, tolerance: Tolerance, stream: str) -> Iterator[Difference]:
        """The mean over a stream's cases; a broken model's rate counts as 0, its perplexity is left to `_each`."""
        higher = tolerance.better == "higher"
        pairs = [
            (was.figures[figure], now.figures[figure], now.id)
            for was, now in self.both
            if was.stream == stream and figure in was.figures and figure in now.figures
        ]
        kept = [
            (0.0 if was is None else was, 0.0 if now is None else now, name)
            for was, now, name in pairs
            if higher or (was is not None and now is not None)
        ]
        if not kept:
            return
        before = math.fsum(was for was, _, _ in kept) / len(kept)
        after = math.fsum(now for _, now, _ in kept) / len(kept)
        loss, allowed = tolerance.loss(before, after), tolerance.of(before, self.noise)
        if abs(loss) <= allowed:
            return
        losses = [tolerance.loss(was, now) for was, now, _ in kept]
        shown, how = _shown(kept, losses, Random(f"{self.now.name}:{stream}:{figure}"))
        direction = "worse" if loss > 0 else "better"
        spelled = rate if higher and max(before, after) <= 1 else exact
        said = f"{stream}: {figure} {spelled(before)} before, {spelled(after)} now over {counting(len(kept))} ({how})"
        if not shown:
            said += f"; {direction}, but so few cases cannot show it"
            yield self._told(Shift.UNSHOWN, "informative", said, figure)
        elif loss > 0:
            names = [name for one, (_, _, name) in sorted(zip(losses, kept, strict=True), key=_worst_first) if one > 0]
            said += f": {_listed(names)}"
            yield self._told(Shift.REGRESSED, tolerance.tier, said, figure, tuple(names))
        else:
            yield self._told(Shift.IMPROVED, tolerance.tier, said, figure)

    def _told(
        self, shift: Shift, tier: Tier, sentence: str, figure: str = "", cases: tuple[str, ...] = ()
    ) -> Difference:
        return Difference(shift, tier, self.now.model, self.now.editor, sentence, figure, cases)


def _worst_first(one: tuple[float, tuple[float, float, str]]) -> tuple[float, str]:
    return -one[0], one[1][2]


def _shown(kept: Sequence[tuple[float, float, str]], losses: Sequence[float], generator: Random) -> tuple[bool, str]:
    """Whether the cases show a difference, and by which test."""
    if all(was in (0, 1) and now in (0, 1) for was, now, _ in kept):
        lost, gained = sum(one > 0 for one in losses), sum(one < 0 for one in losses)
        p = mcnemar(lost, gained)
        return p < LEVEL, f"{lost} lost, {gained} gained, McNemar p = {exact(p, 2)}"
    if len(losses) < fewest_lost():
        return False, f"{counting(len(losses))}, at least {fewest_lost()} needed"
    low, high = mean_interval(losses, generator)
    return not low <= 0 <= high, f"95% interval of the loss {exact(low, 2)} to {exact(high, 2)}"


def _subject(then: AcceptedBlock, now: AcceptedBlock) -> Iterator[Difference]:
    for name, was, present in meaning.differing(then.subject, now.subject):
        said = "its code is not that of then" if name == "code" else f"{name} {was!r} before, {present!r} now"
        yield Difference(Shift.CHANGED, "informative", now.model, now.editor, said, name)


def _other(block: AcceptedBlock, name: str, then: object, now: object) -> str:
    words = meaning.CONDITIONS.get(name, name)
    return f"{block.name}: {name} ({words}) {_brief(then)} in the baseline, {_brief(now)} now"


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {more} more" if more > 0 else "")


def _any_case(blocks: Iterable[AcceptedBlock]) -> bool:
    return any(block.cases for block in blocks)


def _apart(baseline: AcceptedBaseline, now: Iterable[AcceptedBlock]) -> str:
    """That nothing of a run was accepted: by other names, or other cases of the same."""
    was, present = (sorted(block.name for block in blocks) for blocks in (baseline.blocks, now))
    if set(was) & set(present):
        return f"no case of it is in this run, of {_listed(present)}: give the same requests and -k"
    return f"it is of {_listed(was)}, and this run of {_listed(present)}: give the same --editor and --model"


def _rank(one: Difference) -> tuple[bool, int, int, str, str]:
    tiers = ("blocking", "warning", "informative")
    return not one.blocks, list(Shift).index(one.shift), tiers.index(one.tier), one.model, one.editor
