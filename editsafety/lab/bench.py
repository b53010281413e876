"""Bench: a model made ready for edits to be measured on it: its texts, and what was measured of it unedited.

It also keeps every byte of the model, for the day when an editor writes where it should not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from editsafety import measures
from editsafety.datasets.request import EditRequest
from editsafety.edits.baseline import Baseline
from editsafety.edits.seal import Keepsake, Seal
from editsafety.errors import MeasureError, UndoError
from editsafety.judging.policy import Policy
from editsafety.judging.stopping import EnoughTexts, ratio_limits
from editsafety.lab.asking import as_asked
from editsafety.lab.provenance import of_model, of_software
from editsafety.lab.unedited_shelf import UneditedShelf
from editsafety.measures import AbilityProbe, Inputs, Measure, ReferringMeasure
from editsafety.measures.questions import asked_together
from editsafety.model.handle import ModelHandle
from editsafety.runs.facts import ModelFacts, RunFacts
from editsafety.runs.measurement import Measurement
from editsafety.runs.signals import STEP, WALK

Found = dict[str, Measurement]
NOISE_TEXTS = 20


@dataclass
class Bench:
    """A loaded model with what is measured on it unedited; to be opened before anything is compared."""

    handle: ModelHandle
    texts: Sequence[str]
    prefixes: Sequence[str]  # contexts behind which a request is asked, one drawn per request; none: not asked so
    batch_size: int
    keepsake: Keepsake
    measures: Sequence[Measure] = field(default_factory=measures.needed)
    base: Found = field(default_factory=dict)  # the measures of the unedited model alone
    along: Sequence[Measure] = ()  # measured at every step of a course because the policy has a limit on them
    noise: float = 0.0  # the most by which the perplexity of a text differs when it is measured again
    probes: Sequence[AbilityProbe] = ()  # abilities that measures may ask
    references: dict[str, Any] = field(default_factory=dict)  # what measures keep of the unedited model, by measure
    baseline: Baseline | None = None  # what the model did before anybody edited it
    broken: str = ""  # why nothing can be measured on this model any more: it has to be loaded anew
    enough: EnoughTexts | None = None  # after how many texts enough is known of an edited model; None: after all
    shelf: UneditedShelf | None = None  # where what is measured of the unedited model is kept for others
    spoilt: str = ""  # why that does not help either: nothing can be judged in this process any more
    _owners: dict[str, Measure] = field(default_factory=dict)  # which measure each figure is of
    _unedited: dict[tuple[str, ...], Found] = field(default_factory=dict)
    _probed: dict[str, Measurement] = field(default_factory=dict)
    _seal: Seal | None = None  # of the model as it was loaded, once that was looked at

    def open(
        self,
        policy: Policy,
        base: Found | None = None,
        noise: float = 0.0,
        *,
        probes: Sequence[AbilityProbe] | None = None,
    ) -> None:
        """Measure the unedited model, unless `base` and `noise` are known from before.

        `probes` are those of courses, None where no course will be judged. Raises UsageError for a policy with a limit
        on what nothing measures, or one that is finer than the noise, MeasureError for a figure of two measures.
        """
        given = {one: self._names_of(one) for one in self.measures}
        wanted = {limit.measure for limit in policy.course.values()} - set(STEP)
        self.along = [one for one in self.measures if one.scope == "case" and wanted.intersection(given[one])]
        names = [name for one in self.measures for name in given[one]]
        along = [name for one in self.measures if one.scope == "model" or one in self.along for name in given[one]]
        along += [*STEP, *(probe.name for probe in probes or ())]
        policy.refuse_unknown(names, None if probes is None else along)
        self.refer()
        if base is None:
            self.measure_base()
        else:
            self.base, self.noise = base, noise
        policy.refuse_below_noise(self.noise)
        self.baseline = Baseline.of(self.handle)

    def facts(self) -> tuple[ModelFacts, RunFacts]:
        """What a report says of the model, and of what it was measured with."""
        columns = measures.columns(self.measures)
        return replace(of_model(self.handle), noise=self.noise), RunFacts(software=of_software(), columns=columns)

    def inputs(self, requests: Sequence[EditRequest] = (), **more: Any) -> Inputs:
        """What measures may look at. The prefix of a request is drawn by the request alone, in any order the same."""
        prefixes = [self.prefixes[int(r.digest()[:8], 16) % len(self.prefixes)] for r in requests if self.prefixes]
        return Inputs(
            *(as_asked(self.handle, requests), self.texts, prefixes),
            references=self.references,
            probes=self.probes,
            batch_size=self.batch_size,
            **more,
        )

    def measure(self, scope: str, requests: Sequence[EditRequest] = (), **more: Any) -> Found:
        """What those measures find that have this scope ("model", "case" or "edit"), on the model as it is."""
        with self._others_run():
            found = measure(self.measures, self.handle, self.inputs(requests, **more), scope)
        for name in found:
            owner = self._owners.get(name)
            if owner is not None and owner.scope != scope:
                raise MeasureError(
                    f"a measure that does not say what it `gives`, of scope {scope!r}, returned {name!r}, which is a "
                    f"figure of measure {owner.name}. Give it a name of its own."
                )
        return found

    def _names_of(self, one: Measure) -> list[str]:
        """The figures of a measure, whatever it is given; from now on they are its own."""
        names = [found.name for found in measures.called(one, self.handle, Inputs())]
        for name in names:
            if name in WALK:
                raise MeasureError(f"measure {one.name} gives {name!r}, which is a figure of courses. Rename it.")
            if (owner := self._owners.setdefault(name, one)) is not one:
                raise MeasureError(_two_owners(name, owner, one))
        return names

    def refer(self) -> None:
        """Let measures keep what they compare edited models with: the model is unedited now, wherever it comes from."""
        inputs = self.inputs()
        asking = [one for one in self.measures if isinstance(one, ReferringMeasure)]
        with asked_together(self.handle, [], inputs):
            self.references = {one.name: measures.referred(one, self.handle, inputs) for one in asking}

    def measure_base(self) -> None:
        """Measure the unedited model, and some texts once more one by one: what differs is the noise floor."""
        self.base = self.measure("model")
        few = Inputs(texts=self.texts[:NOISE_TEXTS], batch_size=1)
        usual = [one for one in self.measures if getattr(one, "default", True)]
        again = measure(usual, self.handle, few, "model")["me_ppl"].items
        pairs = [(a, b) for a, b in zip(self.base["me_ppl"].items, again, strict=False) if a and b]
        self.noise = max((abs(a - b) / a for a, b in pairs), default=0.0)

    def measure_called(self, name: str) -> Measure:
        """A measure by its own name: the one of this bench, looked up where it has none of that name."""
        return next((one for one in self.measures if one.name == name), None) or measures.load(name)

    def unedited(self, requests: Sequence[EditRequest]) -> Found:
        """The measurements of requests on the unedited model, taken once whatever the number of editors."""
        key = tuple(request.digest() for request in requests)
        if key not in self._unedited:
            prefixes = tuple(self.inputs(requests).prefixes)
            self._unedited[key] = self._once(("requests", key, prefixes), lambda: self.measure("case", requests))
        return self._unedited[key]

    def probed(self, probe: AbilityProbe) -> Measurement:
        """What a probe finds on the unedited model, taken once whatever the number of cases."""
        key = repr(probe)
        if key not in self._probed:
            with self._others_run():
                found = self._once(
                    ("probe", key), lambda: {probe.name: measures.probed(probe, self.handle, self.batch_size)}
                )
            self._probed[key] = found[probe.name]
        return self._probed[key]

    def _once(self, about: tuple[object, ...], find: Callable[[], Found]) -> Found:
        """What is found of the unedited model, by whoever was the first to look."""
        return find() if self.shelf is None else self.shelf.take(about, find)

    def stop_when_known(self, policy: Policy) -> None:
        """Read of edited models only as many texts as it takes to tell on which side of every limit they are.

        Raises UsageError for a policy that needs every text.
        """
        base, even = self.base["me_ppl"], self.base["ppl_even"]
        limits = ratio_limits(policy, base.value or 1.0, even.value)
        before = tuple(item for item in base.items if item is not None)
        self.enough = EnoughTexts(before, limits) if base.value and len(before) == len(self.texts) else None

    @contextmanager
    def _others_run(self) -> Iterator[None]:
        """A measure or a probe may be somebody else's code: what was proved of the model before it is not any more.

        Nor is what a session of its own proves: the signal handlers that a measure runs in stand around that.
        """
        outside = not self.handle.open_sessions
        if outside:
            self.handle.engine.proved = None
        try:
            yield
        finally:
            if outside:
                self.handle.engine.proved = None

    def is_intact(self) -> bool:
        """Whether every weight is what it was when the model was loaded.

        The first time that is told by its fingerprint, which takes long on a large model, later by checksums.
        """
        seal = Seal.of(self.handle)
        if self._seal is None:
            intact = self.handle.fingerprint() == self.handle.identity
            self._seal = seal if intact else None
            return intact
        return not self._seal.changed(seal)

    def repair(self) -> None:
        """Bring back every byte after an editor did not. Raises UndoError when that is not enough."""
        self.keepsake.restore(self.handle)
        different = [*self.keepsake.frame.left_behind(self.handle)]
        different += () if self.baseline is None else self.baseline.differences(self.handle)
        if self.handle.fingerprint() != self.handle.identity or different:
            raise UndoError([f"{self.handle.name} cannot be brought back; load it again", *different])


def measure(chosen: Sequence[Measure], handle: ModelHandle, inputs: Inputs, scope: str) -> Found:
    """What those of the chosen measures find that have this scope ("model", "case" or "edit")."""
    found: Found = {}
    owners: dict[str, Measure] = {}
    asking = [one for one in chosen if one.scope == scope]
    with asked_together(handle, asking, inputs):
        for one in asking:
            for figure in measures.called(one, handle, inputs):
                if (owner := owners.setdefault(figure.name, one)) is not one:
                    raise MeasureError(_two_owners(figure.name, owner, one))
                found[figure.name] = figure
    return found


def _two_owners(name: str, first: Measure, second: Measure) -> str:
    return (
        f"measures {first.name} and {second.name} both give {name!r}: one would silently stand for the other. "
        "Rename one of them, or uninstall its package."
    )
