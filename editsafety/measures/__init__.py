"""Measures: one per file. A measure turns a model (edited or not) into measurements.

A file here or an entry point in group `editsafety.measures`; it ends in `MEASURE = TheClass()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from editsafety import discovery
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit
from editsafety.errors import MeasureError
from editsafety.judging.stopping import EnoughTexts
from editsafety.measures._answerable import answerable
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Column, Measurement


@dataclass(frozen=True)
class Inputs:
    """What a measure may look at besides the model."""

    # Those of the case.
    requests: Sequence[EditRequest] = ()
    # For perplexity.
    texts: Sequence[str] = ()
    # One context per request, "Some text. ", for prompts in the middle of a text.
    prefixes: Sequence[str] = ()
    # When the model is edited.
    edit: Edit | None = None
    # The same measure's results on the unedited model, by name.
    before: Mapping[str, Measurement] = field(default_factory=dict)
    # What a measure keeps of the unedited model beside its results (see `ReferringMeasure`), by the measure's name.
    references: Mapping[str, Any] = field(default_factory=dict)
    # Abilities whose items may be asked.
    probes: Sequence[AbilityProbe] = ()
    # How many rows the model is given at once.
    batch_size: int = 64
    # After how many texts enough is known of an edited model; None: all of them are read.
    enough: EnoughTexts | None = None


class Measure(Protocol):
    """`scope` "model": one result per model, whatever the case; "case": depends on the requests; "edit": on an edit.

    A measure may also have `gives`, the names of its measurements, written out: from them a policy with a limit on what
    nobody measures is refused before a model is loaded. `columns` show in the tables of every report; `default = False`
    is for a measure that takes long and is run only when a policy has a limit on what it `gives`. A measure that asks
    the model for answers may say beforehand which `questions` it has (`measures/questions.py`): those of all measures
    are asked together then, in less than half of the time. `asks_abilities = True` says that its figures depend on
    `probes`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    scope: ClassVar[Literal["model", "case", "edit"]]

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """What was found; always the same names, whether there are values or reasons."""
        ...


@runtime_checkable
class ReferringMeasure(Protocol):
    """A measure of scope "model" that compares with more of the unedited model than a measurement can hold.

    What it keeps is in memory only, with the model that it was found on, and comes back to it as
    `inputs.references[name]`: it is found anew wherever that model is loaded, be it in another process or in a run that
    goes on. How much memory that may take is the measure's own business: it must have a limit.
    """

    name: ClassVar[str]

    def refer(self, handle: ModelHandle, inputs: Inputs) -> object:
        """What is kept of the model, which is unedited now."""


class AbilityProbe(Protocol):
    """An ability with items of known answers. Its `repr` tells everything that can change its result."""

    @property
    def name(self) -> str:
        """The name of its measurement."""
        ...

    def __call__(self, handle: ModelHandle, batch_size: int) -> Measurement:
        """The mean score of the items on the model as it is."""
        ...


@runtime_checkable
class ChoiceProbe(Protocol):
    """An ability that may be a choice between options."""

    def option_shares(self, handle: ModelHandle, batch_size: int) -> list[tuple[list[float], int]] | None:
        """Of every item the probability of each option and the index of the right one; None where it is no choice."""
        ...


def names() -> list[str]:
    """Every measure; imports none."""
    return discovery.names("measures")


def every() -> tuple[Measure, ...]:
    """All measures, imported, by name."""
    found: tuple[Measure, ...] = discovery.load_all("measures")
    return found


def needed(measurements: Iterable[str] = ()) -> tuple[Measure, ...]:
    """The measures that are run by default, and those that are not but give one of these measurements.

    A measure that takes long says `default = False`, and in `gives` what its measurements are called.
    """
    wanted = set(measurements)
    return tuple(m for m in every() if getattr(m, "default", True) or wanted.intersection(getattr(m, "gives", ())))


def called(measure: Measure, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
    """What a measure finds. Raises MeasureError for what it does not say that it `gives`, for no measurements at all,
    and for whatever goes wrong in its code; what a sidecar of an editor raises meanwhile comes out as it is.

    A figure has one owner: one that came back under the name of another would be judged in its place.
    """
    beside = () if inputs.edit is None else inputs.edit.sidecars
    found = answerable(f"measure {measure.name}", handle, lambda: tuple(measure(handle, inputs)), beside)
    names = [one.name if isinstance(one, Measurement) else None for one in found]
    own = getattr(measure, "gives", None)
    for place, name in enumerate(names):
        if name is None:
            kind = type(found[place]).__name__
            raise MeasureError(f"measure {measure.name} returned {kind}, expected a tuple of Measurement.")
        if name in names[:place]:
            raise MeasureError(f"measure {measure.name} returned {name!r} twice; a figure has one value.")
        if own is not None and name not in own:
            said = ", ".join(own) or "nothing"
            raise MeasureError(f"measure {measure.name} returned {name!r}, but in `gives` it says: {said}.")
        if strange := found[place].strange():
            raise MeasureError(f"measure {measure.name}: {strange}.")
    return found


def referred(measure: ReferringMeasure, handle: ModelHandle, inputs: Inputs) -> object:
    """What a measure keeps of the unedited model. Raises as `called` where it fails."""
    return answerable(f"measure {measure.name}", handle, lambda: measure.refer(handle, inputs))


def probed(probe: AbilityProbe, handle: ModelHandle, batch_size: int) -> Measurement:
    """What an ability finds on the model as it is. Raises as `called` where it fails."""
    found = answerable(f"ability {probe.name}", handle, lambda: probe(handle, batch_size))
    if strange := found.strange() if isinstance(found, Measurement) else f"{type(found).__name__} is no Measurement":
        raise MeasureError(f"ability {probe.name}: {strange}.")
    return found


def columns(chosen: Iterable[Measure]) -> tuple[Column, ...]:
    """The columns of these measures, from left to right."""
    every = [column for one in chosen for column in getattr(one, "columns", ())]
    return tuple(sorted(every, key=lambda column: column.order))


def load(name: str) -> Measure:
    """The measure behind a name."""
    measure: Measure = discovery.load("measures", name)
    return measure
