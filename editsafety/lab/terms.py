"""Terms: how the courses of a model are walked, as options and policy say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from editsafety import abilities, editors
from editsafety.editors import Traits
from editsafety.errors import UsageError
from editsafety.judging.policy import Policy
from editsafety.measures import AbilityProbe
from editsafety.names import label
from editsafety.runs.case import Case
from editsafety.runs.plan import RunPlan
from editsafety.runs.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Terms:
    """What of a walk is not in the case itself."""

    limit: float  # the perplexity ratio past which the model is broken
    stop: bool = True  # whether the course ends there
    probes: Sequence[AbilityProbe] = ()  # abilities that are measured at every step

    @classmethod
    def of(cls, plan: RunPlan, model: str) -> Self:
        """What a run's options and policy say of the courses of a model."""
        settings = plan.settings
        probes = tuple(abilities.load(spec, settings.items) for spec in plan.probes(model))
        return cls(Policy.of(settings).collapse, not settings.keep_going, probes)

    def shared(self, shared: str) -> str:
        """sha256 of what can change a record beside the case itself; `shared` is that of model, editor, measures.

        Raises UsageError for a probe whose `repr` does not say what it is (a function, say): it is another one in
        every process, and nothing would be found again.
        """
        probes = [repr(probe) for probe in self.probes]
        for probe in probes:
            if " at 0x" in probe:
                raise UsageError(f"probe {probe}: its repr has to tell what it measures. Make it a frozen dataclass.")
        return hashlib.sha256(f"{shared}:{self.limit!r}:{self.stop}:{probes!r}".encode()).hexdigest()


def refusal(case: Case) -> str | None:
    """Why an editor cannot go along a case's schedule: its traits. None when it can."""
    traits = editors.load(case.editor).traits
    return why_not(label(case.editor), traits, case.schedule, len(case.requests)) or None


def why_not(name: str, traits: Traits, schedule: Schedule, requests: int) -> str:
    """Why an editor of these traits cannot go along a schedule with so many requests; "" when it can."""
    sizes = [len(portion) for portion in schedule.portions(requests)]
    if max(sizes, default=0) > 1 and not traits.batch:
        return f"{name} edits one fact at a time; a batch of {max(sizes)} cannot be given to it."
    if schedule.cumulative and len(sizes) > 1 and not traits.sequential:
        return f"{name} cannot be applied on top of itself; give at most {sizes[0]} request(s)."
    return ""
