"""How far one distribution over the vocabulary is from another, and what many such distances come to.

    KL(before || after) = sum over v of p0(v) [ln p0(v) - ln p1(v)]        nats

Computed from float32 logits z as sum of p0 [(z0 - max z0) - (z1 - max z1)] - (ln Z0 - ln Z1), with the sums Z in pairs
and their logarithms in float64: `log_softmax` adds one probability after the other to a float32, which is off by up to
1.6e-4 nats at 49,152 tokens. Of equal logits it is exactly 0. It cannot be negative; what rounding makes so is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from editsafety.model.scoring import AT_ONCE, AT_ONCE_ELSEWHERE
from editsafety.runs.measurement import Measurement


def divergences(before: Tensor, after: Tensor) -> Tensor:
    """KL(before || after) of each row in nats, float64 `[n]` on the CPU, from logits `[n, vocab]`.

    NaN, and infinity at the top, give NaN; a token that was possible and is impossible now gives infinity.
    """
    first, second = before.float(), after.float()
    first, second = first - first.amax(-1, keepdim=True), second - second.amax(-1, keepdim=True)
    shares = first.exp()
    total, other = shares.sum(-1).double(), second.exp().sum(-1).double()
    # A token that was impossible counts nothing, whatever it is now.
    apart = torch.where(shares > 0, shares * (first - second), 0.0).sum(-1).double() / total
    return (apart - (total.log() - other.log())).clamp(min=0.0).cpu()


def same_tops(before: Tensor, after: Tensor) -> Tensor:
    """Whether the most probable token of each row is the same, `[n]` on the CPU; of several the lowest id."""
    return (before.argmax(-1) == after.argmax(-1)).cpu()


def narrowed(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """The logits on the CPU, in the model's own type of numbers where that loses nothing."""
    if dtype.itemsize < logits.element_size():
        narrow = logits.to(dtype)
        if torch.equal(narrow.to(logits.dtype), logits):
            return narrow.cpu()
    return logits.cpu()


def rows_at_once(device: torch.device, vocabulary: int) -> int:
    """How many rows of logits are compared at once."""
    return max(1, AT_ONCE.get(device.type, AT_ONCE_ELSEWHERE) // vocabulary)


def mean_of(name: str, version: int, nats: Sequence[float], *, items: Sequence[float] = ()) -> Measurement:
    """The mean; broken where one is not finite."""
    return _figure(name, version, nats, math.fsum(nats) / len(nats) if _finite(nats) else math.nan, items)


def percentile_of(name: str, version: int, nats: Sequence[float], share: float) -> Measurement:
    """What so many of them do not exceed: between two neighbours in proportion, as numpy's default has it."""
    if not _finite(nats):
        return _figure(name, version, nats, math.nan)
    ordered, place = sorted(nats), share * (len(nats) - 1)
    low = math.floor(place)
    high = min(low + 1, len(nats) - 1)
    return _figure(name, version, nats, ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def agreement(name: str, version: int, nats: Sequence[float], same: Sequence[bool]) -> Measurement:
    """The share of places with the same most probable token."""
    value = sum(same) / len(same) if _finite(nats) else math.nan
    return _figure(name, version, nats, value, unit="rate")


def missing(names: Sequence[tuple[str, str]], version: int, reason: str, *, broken: bool = False) -> list[Measurement]:
    """All of these figures (name, unit), without a value for the same reason."""
    return [Measurement.missing(name, version, unit, reason, broken=broken) for name, unit in names]


def _figure(
    name: str,
    version: int,
    nats: Sequence[float],
    value: float,
    items: Sequence[float] = (),
    unit: str = "nat",
) -> Measurement:
    finite = tuple(item if math.isfinite(item) else None for item in items)
    if math.isfinite(value):
        return Measurement(name, version, unit, value, n=len(nats), items=finite)
    bad = sum(not math.isfinite(one) for one in nats)
    reason = f"the logits are not finite, or rule out what was possible, at {bad} of {len(nats)} places"
    return Measurement.missing(name, version, unit, reason, broken=True, n=len(nats), items=finite)


def _finite(nats: Sequence[float]) -> bool:
    return all(math.isfinite(one) for one in nats)
