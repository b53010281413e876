"""Surrogate and early warning: is perplexity a fair stand-in for abilities, and do the weights tell a collapse?

Two questions to the edited models of stored runs, per model and never mixed. "Butterfly Effect" (arXiv 2402.09656,
figure 2) reports Spearman's rho of perplexity with six tasks over models spread from intact to dead; none of them lay
between one and two times the unedited perplexity, so correlations are also given within ranges. And which signals of
the weights predict collapse (see `alarms`), in the edit itself and one measured step before a sequence collapses.

An observation is one edited model. Those of one sequence build on each other: their p-values and intervals, which
assume independent observations, come out too small. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from editsafety.judging.alarms import Alarm, Prediction, predictions, signals
from editsafety.judging.checks import ratio
from editsafety.judging.policy import COLLAPSE
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.measurement import Measurement

FEWEST_PAIRS = 4  # Fisher's z has n - 3 in its variance
Z = 1.959963984540054  # 95 %
SPANS: tuple[tuple[str, float, float], ...] = (
    ("all", 0.0, math.inf),
    ("below 1.25x", 0.0, 1.25),
    ("1x to 2x", 1.0, 2.0),
    ("2x to 10x", 2.0, 10.0),
    ("10x and above", 10.0, math.inf),
)


@dataclass(frozen=True, slots=True)
class Observation:
    """One edited model."""

    # The model's name.
    model: str
    # Who edited it.
    editor: str
    # The case, or the step of a sequence.
    what: str
    # Of perplexities; infinite where the model is broken.
    ratio: float
    # Scores of abilities by name.
    probes: Mapping[str, float] = field(default_factory=dict)
    # Weight signals by name; one that is not finite is infinite on its bad side.
    signals: Mapping[str, float] = field(default_factory=dict)
    # Whether the ratio is past the limit.
    collapsed: bool = False
    # For a step of a sequence that has not collapsed, whether the next one did; None where that cannot be said.
    ahead: bool | None = None


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of log-perplexity with a probe, over several models."""

    # The ability.
    probe: str
    # Of ranks, or of values.
    method: Literal["spearman", "pearson"]
    # The name of the span of perplexity ratios that it is over.
    span: str
    # How many models.
    n: int
    # How many had no score, or broke (Pearson).
    left_out: int = 0
    # The coefficient; without one there is a `reason`.
    value: float | None = None
    # Two-sided, from Student's t.
    p: float | None = None
    # Lower bound of the 95 % interval by Fisher's z, for Spearman with the variance of Bonett and Wright (2000), (1 +
    # r^2 / 2) / (n - 3); a perfect correlation has no interval.
    low: float | None = None
    # Its upper bound.
    high: float | None = None
    # Why there is no value.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """What the edited models of one model say."""

    # The model's name.
    model: str
    # How many edited models there are.
    n: int
    # How many of them have no finite perplexity.
    broken: int
    # Perplexity against each ability.
    correlations: tuple[Correlation, ...]
    # How each weight signal tells collapsed edits from others.
    predictions: tuple[Prediction, ...]
    # How it predicts the collapse of a sequence one step before.
    ahead: tuple[Prediction, ...] = ()

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The recommended thresholds of this model."""
        return tuple(found.alarm for found in self.predictions if found.alarm is not None)

    def as_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite are written by name."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def studies(observations: Iterable[Observation]) -> tuple[Study, ...]:
    """One study per model, by name."""
    by_model: dict[str, list[Observation]] = {}
    for one in observations:
        by_model.setdefault(one.model, []).append(one)
    return tuple(_study(model, found) for model, found in sorted(by_model.items()))


def of_cases(
    records: Iterable[CaseRecord], *, probes: Iterable[str] = (), limit: float = COLLAPSE
) -> list[Observation]:
    """Single edits; those that failed or have no perplexity are left out. `probes`: measurements to be correlated."""
    wanted, found = tuple(probes), []
    for record in records:
        past = None if record.failure is not None else ratio(record)
        if past is not None:
            names = (*wanted, *record.abilities)
            scores = {name: value for name in names if (value := _score(record.after.get(name))) is not None}
            weights = signals(record.after, record.notes)
            found.append(
                Observation(record.model, record.editor, record.case, past, scores, weights, not past <= limit)
            )
    return found


def of_courses(records: Iterable[CaseRecord], *, limit: float = COLLAPSE) -> list[Observation]:
    """Every measured step, with the abilities that were measured there."""
    found = []
    for record in records:
        steps = [(step, past) for step, past in zip(record.steps, record.ratios, strict=True) if past is not None]
        for at, (step, past) in enumerate(steps):
            fallen = not past <= limit
            follows = record.schedule.cumulative and not fallen and at + 1 < len(steps)
            ahead = not steps[at + 1][1] <= limit if follows else None
            found.append(_of_step(record, step, past, fallen, ahead))
    return found


def _of_step(record: CaseRecord, step: Step, past: float, fallen: bool, ahead: bool | None) -> Observation:
    scores = {name: value for name in record.abilities if (value := _score(step.found.get(name))) is not None}
    what = f"{record.case}@{step.edits}"
    return Observation(record.model, record.editor, what, past, scores, signals(step.found, step.notes), fallen, ahead)


def correlation(
    observations: Sequence[Observation], probe: str, method: Literal["spearman", "pearson"], span: str = "all"
) -> Correlation:
    """Of log-perplexity with one probe over the models within a span of the perplexity ratio.

    A broken model has the largest perplexity of all where only ranks count (Spearman), if it has a score; Pearson, for
    which infinity is no number, leaves it out.
    """
    low, high = next((low, high) for name, low, high in SPANS if name == span)
    inside = [one for one in observations if low <= one.ratio < high or (high == math.inf and one.ratio == high)]
    usable = [one for one in inside if one.ratio > 0 and math.isfinite(one.probes.get(probe, math.nan))]
    if method == "pearson":
        usable = [one for one in usable if math.isfinite(one.ratio)]
    n, left_out = len(usable), len(inside) - len(usable)
    if n < FEWEST_PAIRS:
        said = f"{n} model(s) with both figures; a correlation needs at least {FEWEST_PAIRS}"
        return Correlation(probe, method, span, n, left_out, reason=said)
    x, y = [math.log(one.ratio) for one in usable], [one.probes[probe] for one in usable]
    for name, series in (("perplexity", x), (probe, y)):
        if len(set(series)) == 1:
            return Correlation(probe, method, span, n, left_out, reason=f"{name} is the same in all {n} models")
    value, p = _correlate(x, y, method)
    if not math.isfinite(value):
        return Correlation(probe, method, span, n, left_out, reason="the figures are too close together to correlate")
    if abs(value) == 1:
        return Correlation(probe, method, span, n, left_out, value, p)
    variance = (1 + value * value / 2 if method == "spearman" else 1.0) / (n - 3)
    centre, half = math.atanh(value), Z * math.sqrt(variance)
    return Correlation(probe, method, span, n, left_out, value, p, math.tanh(centre - half), math.tanh(centre + half))


def _study(model: str, found: Sequence[Observation]) -> Study:
    probes = sorted({name for one in found for name in one.probes})
    methods: tuple[Literal["spearman", "pearson"], ...] = ("spearman", "pearson")
    return Study(
        model,
        len(found),
        sum(one.ratio == math.inf for one in found),
        tuple(correlation(found, probe, m, span) for probe in probes for m in methods for span, _, _ in SPANS),
        predictions([(one.signals, one.collapsed) for one in found]),
        predictions([(one.signals, one.ahead) for one in found if one.ahead is not None]),
    )


def _correlate(x: Sequence[float], y: Sequence[float], method: str) -> tuple[float, float]:
    import warnings

    from scipy import stats

    # Not on infinities: their ranks are fine, their deviations are none.
    pair = (stats.rankdata(x), stats.rankdata(y)) if method == "spearman" else (x, y)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", stats.NearConstantInputWarning)
            found = stats.pearsonr(*pair)
    except stats.NearConstantInputWarning:
        return math.nan, math.nan
    return float(found.statistic), float(found.pvalue)


def _score(found: Measurement | None) -> float | None:
    return None if found is None else found.value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
