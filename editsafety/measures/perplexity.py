"""Perplexity of plain texts: the signal of collapse.

    nll_i = mean over tokens 2..n of -ln P(token | tokens before)        nats per token of text i
    me_ppl = mean_i exp(nll_i)                                           ME-PPL's own definition

No special tokens, no BOS, no truncation; probabilities in float32 (summed without its bias, see `log_likelihoods`),
sums over tokens in float64. `me_ppl` is what "The Butterfly Effect of Model Editing" (arXiv 2402.09656, `ppl.py`)
reports; one broken text dominates it. ROME's repository divides by n instead of n - 1 and comes out lower. Computed in
nats, so that a text at 800 nats per token is still a number where its perplexity is none.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from editsafety.engine import passes
from editsafety.errors import DataError
from editsafety.judging.stopping import EnoughTexts, reading_order
from editsafety.measures import Inputs
from editsafety.measures._enough_texts import Reading, read_enough, score_rows
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

NAMES = {
    "me_ppl": "perplexity",
    "nll_per_token": "nat",
    "ppl_median": "perplexity",
    "ppl_worst": "perplexity",
    "ppl_token_weighted": "perplexity",
    "ppl_even": "perplexity",
}


class Perplexity:
    """`me_ppl`, `nll_per_token` (mean over all tokens), and of the texts' perplexities the median and the worst.

    `ppl_token_weighted` is exp(nll_per_token). `ppl_even` is what a model has that finds all tokens equal, the
    size of its vocabulary: what a broken base is told by. Items: perplexities per text (`me_ppl`), nats per text
    (`nll_per_token`). Logits that are not finite, or a perplexity past float64 (709.8 nats), are a finding: no value,
    `broken`. Where `inputs.enough` says so, texts are read until it is known on which side of every limit `me_ppl`
    is; what needs all of them is missing then. Raises DataError, before anything is run, for a text of fewer than 2
    tokens or past the model's context.
    """

    name: ClassVar[str] = "perplexity"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "model"
    gives: ClassVar[tuple[str, ...]] = (
        "me_ppl",
        "nll_per_token",
        "ppl_median",
        "ppl_worst",
        "ppl_token_weighted",
        "ppl_even",
    )

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The six figures of the texts."""
        if not inputs.texts:
            return tuple(Measurement.missing(name, self.version, unit, "no texts") for name, unit in NAMES.items())
        texts = tuple(inputs.texts)
        rows = passes.keep(handle, ("rows", texts), lambda: _tokenise(handle, texts))
        if inputs.enough is not None:
            reading = read_enough(handle, rows, reading_order(texts), inputs.enough, inputs.batch_size)
            return self._read_so_far(handle, reading, inputs.enough)
        return self._figures(handle, score_rows(handle, rows, inputs.batch_size))

    def _figures(self, handle: ModelHandle, scored: Sequence[Tensor]) -> tuple[Measurement, ...]:
        """The six figures from the nats of every token of every text."""
        nats = [float(values.mean()) for values in scored]
        counts = [len(values) for values in scored]
        ppl = [_exp(nll) for nll in nats]
        per_token = sum(nll * count for nll, count in zip(nats, counts, strict=True)) / sum(counts)
        spread = _ratio_error(nats, counts, per_token)
        weighted = _exp(per_token)
        words = float(handle.model.config.get_text_config().vocab_size)
        return (
            self._measurement("me_ppl", _mean(ppl), nats, items=ppl, stderr=_error(ppl)),
            self._measurement("nll_per_token", per_token, nats, items=nats, stderr=spread),
            self._measurement("ppl_median", _median(ppl), nats),
            self._measurement("ppl_worst", math.nan if any(math.isnan(x) for x in ppl) else max(ppl), nats),
            self._measurement(
                "ppl_token_weighted", weighted, nats, stderr=None if spread is None else weighted * spread
            ),
            self._measurement("ppl_even", words if math.isfinite(per_token) else math.nan, nats),
        )

    def _read_so_far(self, handle: ModelHandle, reading: Reading, enough: EnoughTexts) -> tuple[Measurement, ...]:
        """The six figures where reading stopped as soon as enough was known; figures that need every text have none."""
        total, scored = len(enough.before), reading.scored
        ppl = {place: _exp(float(values.mean())) for place, values in scored.items()}
        found = self._figures(handle, [scored[place] for place in sorted(scored)])
        if reading.interval is None:  # every text was read, or one is not finite: a finding however many are left
            return tuple(replace(one, of=total) if one.name == "me_ppl" else one for one in found)
        base = _mean(enough.before)
        interval = reading.interval
        items = tuple(ppl.get(place) for place in range(total))
        between = interval.low * base, min(interval.high * base, sys.float_info.max)
        value = Measurement(
            "me_ppl", self.version, NAMES["me_ppl"], interval.ratio * base, n=len(ppl), items=items, of=total,
            between=between,
        )  # fmt: skip
        said = f"needs every text, and {len(ppl)} of {total} were enough to judge by (--adaptive)"
        kept = {"me_ppl": value, "ppl_even": next(one for one in found if one.name == "ppl_even")}
        return tuple(
            kept.get(name) or Measurement.missing(name, self.version, unit, said, n=len(ppl))
            for name, unit in NAMES.items()
        )

    def _measurement(
        self,
        name: str,
        value: float,
        nats: Sequence[float],
        *,
        items: Sequence[float] = (),
        stderr: float | None = None,
    ) -> Measurement:
        finite = tuple(item if math.isfinite(item) else None for item in items)
        if math.isfinite(value):
            error = stderr if stderr is not None and math.isfinite(stderr) else None
            return Measurement(name, self.version, NAMES[name], value, n=len(nats), stderr=error, items=finite)
        reason = _reason(nats)
        return Measurement.missing(name, self.version, NAMES[name], reason, broken=True, n=len(nats), items=finite)


def _tokenise(handle: ModelHandle, texts: Sequence[str]) -> list[list[int]]:
    rows = [handle.ids(text, special=False) for text in texts]
    for number, (row, text) in enumerate(zip(rows, texts, strict=True), 1):
        if not 2 <= len(row) <= handle.context:
            limits = f"perplexity on {handle.name} needs 2 to {handle.context}"
            advice = "Leave it out." if len(row) < 2 else "Nothing is cut off silently: split it or leave it out."
            raise DataError(f"text {number} of {len(texts)} has {len(row)} token(s), {limits}: {text[:60]!r}. {advice}")
    return rows


def _reason(nats: Sequence[float]) -> str:
    bad = [number for number, nll in enumerate(nats, 1) if not math.isfinite(nll)]
    if bad:
        return f"the logits are not finite on {len(bad)} of {len(nats)} texts, first on text {bad[0]}"
    return f"the perplexity overflows: text {nats.index(max(nats)) + 1} is at {max(nats):.1f} nats per token"


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def _mean(values: Sequence[float]) -> float:
    """Arithmetic mean of numbers up to the largest float: scaled, because their sum would overflow."""
    top = max(values)
    if not all(math.isfinite(value) for value in values):
        return math.nan
    return top * (math.fsum(value / top for value in values) / len(values))


def _error(values: Sequence[float]) -> float | None:
    """Standard error of the mean; None for a single value."""
    mean, top, n = _mean(values), max(values), len(values)
    if n < 2 or not math.isfinite(mean):
        return None
    return top * math.sqrt(math.fsum(((value - mean) / top) ** 2 for value in values) / (n - 1) / n)


def _ratio_error(nats: Sequence[float], counts: Sequence[int], mean: float) -> float | None:
    """Standard error of the token-weighted mean, with texts (not tokens) as what was sampled."""
    n = len(nats)
    if n < 2 or not math.isfinite(mean):
        return None
    squares = math.fsum((count * (nll - mean)) ** 2 for nll, count in zip(nats, counts, strict=True))
    return math.sqrt(squares * n / (n - 1)) / sum(counts)


def _median(values: Sequence[float]) -> float:
    """NaN when one text has none: where it would stand in the order is not known."""
    return math.nan if any(math.isnan(value) for value in values) else statistics.median(values)


MEASURE = Perplexity()
