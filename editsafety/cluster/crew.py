"""Crew: the workers of a sweep as its driver sees them, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from editsafety.cluster.work import Brief, Parcel, Work


@dataclass(frozen=True)
class CrewNews:
    """Something was heard of a worker: what it gives back, or that it is gone."""

    worker: str
    parcel: Parcel | None  # None where it died
    how: str = ""  # it died, in words


class Crew(Protocol):
    """Workers that are told what the run is when they begin, and are given one piece of work at a time."""

    size: int  # how many there may be at once

    @property
    def staff(self) -> int:
        """How many there are, those included that have not begun yet."""

    @property
    def idle(self) -> list[str]:
        """The workers that have begun and have nothing to do, by name."""

    def hire(self, brief: Brief) -> None:
        """Get one more. Once it has begun it is idle; that it could not begin is heard of as its trouble."""

    def give(self, worker: str, work: Work) -> None:
        """Give an idle worker something to do."""

    def hear(self) -> CrewNews | None:
        """Wait for what comes next, a while; None where nothing came."""

    def dismiss(self) -> None:
        """Let all of them go, whatever they are doing."""
