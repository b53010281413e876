"""Measures: one per file. A measure turns a model (edited or not) into measurements.

A file here or an entry point in group `editsafety.measures`; it ends in `MEASURE = TheClass()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from editsafety import discovery
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement


@dataclass(frozen=True)
class Inputs:
    """What a measure may look at besides the model.

    `texts` for perplexity, `requests` of the case, `prefixes` (one context per request, "Some text. ") for prompts in
    the middle of a text, `edit` when the model is edited, `before` with the same measure's results on the unedited
    model.
    """

    requests: Sequence[EditRequest] = ()
    texts: Sequence[str] = ()
    prefixes: Sequence[str] = ()
    edit: Edit | None = None
    before: Mapping[str, Measurement] = field(default_factory=dict)
    batch_size: int = 64


class Measure(Protocol):
    """`scope` "model": one result per model, whatever the case; "case": depends on the requests; "edit": on an edit."""

    name: ClassVar[str]
    version: ClassVar[int]
    scope: ClassVar[Literal["model", "case", "edit"]]

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """What was found; always the same names, whether there are values or reasons."""
        ...


class Probe(Protocol):
    """An ability with items of known answers. Its `repr` tells everything that can change its result."""

    @property
    def name(self) -> str:
        """The name of its measurement."""
        ...

    def __call__(self, handle: ModelHandle, batch_size: int) -> Measurement:
        """The mean score of the items on the model as it is."""
        ...


def names() -> list[str]:
    """Every measure; imports none."""
    return discovery.names("measures")


def every() -> tuple[Measure, ...]:
    """All measures, imported, by name."""
    return tuple(load(name) for name in names())


def needed(measurements: Iterable[str] = ()) -> tuple[Measure, ...]:
    """The measures that are run by default, and those that are not but give one of these measurements.

    A measure that takes long says `default = False`, and in `gives` what its measurements are called.
    """
    wanted = set(measurements)
    return tuple(m for m in every() if getattr(m, "default", True) or wanted.intersection(getattr(m, "gives", ())))


def load(name: str) -> Measure:
    """The measure behind a name."""
    measure: Measure = discovery.load("measures", name, "MEASURE")
    return measure
