"""Drop: how much of an ability an edit has cost, beside what is noise. No torch here.

Two sizes tell whether a drop is one. The noise floor is what the same unedited model shows on its own: the spread of
its score over re-runs with other batch sizes, and where that is 0, as it should be, the weight of one item. The
standard error says how far the drop on these items may be from that on all items of the kind; the same items are asked
before and after, so it is that of the differences, which is far smaller than the errors of the two scores suggest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from editsafety.errors import UsageError
from editsafety.runs.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Drop:
    """The score before less the score after: positive when something was lost.

    `drop` is None where there is none to give, with the `reason`; `broken` when that is the edited model's non-finite
    numbers, a finding. `stderr` is that of the mean difference of `n` items; `lost` counts the items whose score
    fell. `floors` is the drop in noise floors, `floor` one of them.
    """

    name: str
    drop: float | None
    floor: float
    stderr: float | None = None
    n: int = 0
    lost: int = 0
    reason: str | None = None
    broken: bool = False

    @property
    def floors(self) -> float | None:
        """The drop in noise floors; infinite for a broken model, None where there is no drop to give."""
        if self.broken:
            return math.inf
        return None if self.drop is None else self.drop / self.floor

    def within(self, floors: float) -> bool:
        """Whether the drop is at most so many noise floors. A broken model is not, nor is what was not measured."""
        found = self.floors
        return found is not None and found <= floors


def drop(before: Measurement, after: Measurement, *, noise: float = 0.0) -> Drop:
    """What was lost between two measurements of the same probe on the same items.

    `noise` is the spread of re-runs of the unedited model (`noise_floor`). Raises UsageError for measurements that
    cannot be compared: other names, or another number of items.
    """
    both = before.value is not None and after.value is not None  # what has no value need not have its items
    other_items = both and len(before.items) != len(after.items)
    if before.name != after.name or before.n != after.n or other_items:
        raise UsageError(
            f"{before.name} on {before.n} items cannot be compared with {after.name} on {after.n}: ask the same items."
        )
    if not (math.isfinite(noise) and noise >= 0):
        raise UsageError(f"{before.name}: a noise of {noise} is no spread; give 0 or more.")
    floor = max(noise, 1 / before.n if before.n else 1.0)
    for which, found in (("before", before), ("after", after)):
        if found.value is None:
            reason = f"{which} the edit: {found.reason}"
            return Drop(before.name, None, floor, n=before.n, reason=reason, broken=which == "after" and found.broken)
    assert before.value is not None and after.value is not None  # noqa: PT018
    pairs = zip(before.items, after.items, strict=True)
    changes = [was - now for was, now in pairs if was is not None and now is not None]
    paired = Measurement.mean_of(before.name, 1, "rate", changes) if changes else None
    return Drop(
        before.name,
        before.value - after.value,
        floor,
        paired.stderr if paired is not None else None,
        before.n,
        sum(change > 0 for change in changes),
    )


def noise_floor(runs: Sequence[Measurement]) -> float:
    """The spread of re-runs of an unedited model: largest less smallest score.

    Raises UsageError for no runs, or one without a value: an unedited model that cannot be measured has no noise.
    """
    values = [run.value for run in runs if run.value is not None]
    if not values or len(values) < len(runs):
        reason = next((run.reason for run in runs if run.value is None), "there are no runs")
        raise UsageError(f"the noise of {runs[0].name if runs else 'a probe'} cannot be told: {reason}.")
    return max(values) - min(values)
