"""Calibration: is the edited model as sure as it is right, as far as the unedited one was?

Asked of the multiple-choice abilities that go with a run, all of their items together: the probabilities are those of
the options that the abilities are scored by. An edit may leave what is answered as it was and shift how surely: a
study of models from which a direction was removed (21,600 decisions) finds confidence moved where accuracy was not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from editsafety.measures import ChoiceProbe, Inputs
from editsafety.measures._calibrated import Item, brier, calibration_error
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

FIGURES = ("calibration_ece", "calibration_brier", "calibration_ece_added", "calibration_brier_added")


@dataclass(frozen=True, slots=True)
class _Sureness:
    """How sure a model is, over all items together."""

    ece: float
    brier: float

    @classmethod
    def of(cls, items: list[Item]) -> _Sureness:
        """Of items, of which there is one at least."""
        return cls(calibration_error(items), math.fsum(brier(item) for item in items) / len(items))


class OptionCalibration:
    """Over the items of all multiple-choice abilities:

    - `calibration_ece`: expected calibration error in 15 bins, 0 to 1
    - `calibration_brier`: Brier score, 0 to 2
    - `calibration_ece_added`, `calibration_brier_added`: what they are more than on the unedited model, on the same
      items; negative where the edit happened to help

    None applies where the run has no such ability. The error of few items is mostly noise: 400 items of a model that is
    perfectly calibrated come to about .03.
    """

    name: ClassVar[str] = "calibration"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "model"
    default: ClassVar[bool] = False
    asks_abilities: ClassVar[bool] = True
    gives: ClassVar[tuple[str, ...]] = (
        "calibration_ece", "calibration_brier", "calibration_ece_added", "calibration_brier_added",
    )  # fmt: skip

    def refer(self, handle: ModelHandle, inputs: Inputs) -> object:
        """Both figures of the unedited model; None where there is nothing to ask."""
        items = _items(handle, inputs)
        return _Sureness.of(items) if items else None

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The four figures."""
        if self.name not in inputs.references:
            reason = "the unedited model was not asked"
            return tuple(Measurement.missing(name, self.version, "score", reason) for name in FIGURES)
        before: _Sureness | None = inputs.references[self.name]
        items = _items(handle, inputs) if before is not None else []
        if before is None or not items:
            reason = "no multiple-choice ability is asked here (a run asks those of --probe)"
            return tuple(Measurement.inapplicable(name, self.version, "score", reason) for name in FIGURES)
        now = _Sureness.of(items)
        values = (now.ece, now.brier, now.ece - before.ece, now.brier - before.brier)
        return tuple(self._figure(*pair, before, now, len(items)) for pair in zip(FIGURES, values, strict=True))

    def _figure(self, name: str, value: float, before: _Sureness, now: _Sureness, n: int) -> Measurement:
        if math.isfinite(value):
            return Measurement(name, self.version, "score", value, n=n)
        broken = not math.isfinite(now.brier)
        reason = f"the {'' if broken else 'unedited '}model's likelihoods are not finite"
        return Measurement.missing(name, self.version, "score", reason, broken=broken, n=n)


def _items(handle: ModelHandle, inputs: Inputs) -> list[Item]:
    """The items of every choice, in the order of the abilities."""
    asked = [one for one in inputs.probes if isinstance(one, ChoiceProbe)]
    found = [one.option_shares(handle, inputs.batch_size) for one in asked]
    return [item for items in found if items is not None for item in items]


MEASURE = OptionCalibration()
