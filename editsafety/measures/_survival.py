"""Survival: whether an edit is still there after something that happens to every model that is used.

An edit is checked in the dtype and in the memory in which it was made. It is shipped as bfloat16, quantised, loaded by
somebody else, trained further. So what says that it took is measured again after such a treatment, in a session inside
of the one around the edit, which brings back every bit, and

    kept = what is measured after the treatment / what was measured before it, at most 1

The unedited model gets the same treatment: what it loses of its own facts by that is no fault of an edit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar, Literal

from editsafety import measures
from editsafety.datasets.request import EditRequest
from editsafety.measures import Inputs
from editsafety.measures.answers import with_gaps
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

# The measures that say whether an edit took, asked again: of each the figure of the same name, larger being better.
# One that is added here has to give an item per request, as efficacy does.
AGAIN = ("efficacy",)
UNIT = "share"


class Survival(ABC):
    """A measure of what is kept through one treatment; per request, then the mean over those that took.

    On an edited model the fact is the new one. On the unedited model it is the old one (`target_true`), where the data
    knows it and the model says it: what the treatment costs without an edit. The least kept of `AGAIN` counts. A
    request on which the edit did not take has nothing to keep: it does not apply, and whether it takes is efficacy's
    business. Logits that are not finite, before or after, are a finding: no value, `broken`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]]

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The figure of the requests. Raises DataError for a prompt that does not fit into the model."""
        asked = replace(inputs, requests=_facts(inputs), prefixes=())
        if not inputs.requests:
            return (self._missing("no requests"),)
        if not asked.requests:
            return (self._inapplicable("no request has a target_true"),)
        before = retake(handle, asked)
        if any(one.broken for one in before.values()):
            return (self._missing("the logits are not finite before any treatment", broken=True),)
        if not any(_kept(before, before, len(asked.requests))):
            missed = "the model does not say the old answer" if inputs.edit is None else "the edit did not take"
            return (self._inapplicable(f"{missed}, so there is nothing to keep"),)
        if reason := self.refuses(handle, inputs):
            return (self._inapplicable(reason),)
        after = self.retake_treated(handle, asked)
        if broken := next((one for one in after.values() if one.broken), None):
            return (self._missing(f"after the treatment: {broken.reason}", broken=True),)
        items = _kept(before, after, len(asked.requests))
        return (with_gaps(self.name, UNIT, items, "nothing to keep", version=self.version),)

    def refuses(self, handle: ModelHandle, inputs: Inputs) -> str | None:
        """Why there is no such treatment of this model; None where there is."""
        return None

    @abstractmethod
    def retake_treated(self, handle: ModelHandle, inputs: Inputs) -> dict[str, Measurement]:
        """What `AGAIN` finds of the treated model. The model in the handle is afterwards what it was."""

    def _inapplicable(self, reason: str) -> Measurement:
        return Measurement.inapplicable(self.name, self.version, UNIT, reason)

    def _missing(self, reason: str, *, broken: bool = False) -> Measurement:
        return Measurement.missing(self.name, self.version, UNIT, reason, broken=broken)


class SurvivalInPlace(Survival):
    """A treatment of the weights where they are."""

    @abstractmethod
    def treated(self, handle: ModelHandle, inputs: Inputs) -> AbstractContextManager[None]:
        """Inside the block the model is treated, afterwards it is bit for bit what it was."""

    def retake_treated(self, handle: ModelHandle, inputs: Inputs) -> dict[str, Measurement]:
        """What `AGAIN` finds inside of that block."""
        with self.treated(handle, inputs):
            return retake(handle, inputs)


def retake(handle: ModelHandle, inputs: Inputs) -> dict[str, Measurement]:
    """What the measures of `AGAIN` find of the model as it is, by name."""
    return {name: _figure(handle, inputs, name) for name in AGAIN}


def _figure(handle: ModelHandle, inputs: Inputs, name: str) -> Measurement:
    found = measures.load(name)(handle, inputs)
    return next(one for one in found if one.name == name)


def _facts(inputs: Inputs) -> tuple[EditRequest, ...]:
    """The requests whose target is to be kept: the new one in an edited model, the old one in the unedited model."""
    if inputs.edit is not None:
        return tuple(inputs.requests)
    known = [request for request in inputs.requests if request.target_true]
    return tuple(replace(request, target_new=request.target_true or "", target_true=None) for request in known)


def _kept(before: Mapping[str, Measurement], after: Mapping[str, Measurement], requests: int) -> Sequence[float | None]:
    """Of each request the least share that is left of what was there before; None where there was nothing."""
    shares = [[_share(before[name].items[at], after[name].items[at]) for name in before] for at in range(requests)]
    found = [[share for share in row if share is not None] for row in shares]
    return [min(row) if row else None for row in found]


def _share(before: float | None, after: float | None) -> float | None:
    if not before:
        return None
    return min(1.0, after / before) if after is not None and math.isfinite(after) else math.nan
