"""Work: what a worker is told when it begins, what it is given to do, and what it gives back: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from editsafety.datasets.request import EditRequest
from editsafety.runs.case import Block, Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.fact import RunFact


@dataclass(frozen=True)
class Brief:
    """What a worker has to know of a run."""

    # The plan, as `laid_out.as_message` puts it.
    plan: Mapping[str, Any]
    # Its digest where it was laid out: a worker with other versions or other files of editors comes to another one.
    digest: str
    # Ids of the cases that are run.
    wanted: tuple[str, ...]
    # Where paths that the user gave are to be read from.
    folder: str
    # What is known of the models and editors already.
    facts: tuple[RunFact, ...] = ()


@dataclass(frozen=True)
class Portion:
    """Cases of one model that are computed together."""

    model: str
    cases: tuple[Case, ...]
    deaths: int = 0  # so often a worker died of this case while it had no other; 0 where there are several


@dataclass(frozen=True)
class OrderCheck:
    """Whether the first and the last case of a block are the same bytes when computed alone, in another order."""

    block: Block
    records: Mapping[str, CaseRecord]  # of these two, by key

    @property
    def model(self) -> str:
        """The model that has to be in memory."""
        return self.block[0]


@dataclass(frozen=True)
class Inquiry:
    """Whether the unedited model gives the true answer of each request."""

    model: str
    requests: tuple[EditRequest, ...]


@dataclass(frozen=True)
class KeyQuestion:
    """What the keys of a model's blocks share by now: its weights or the code of an editor may have changed since."""

    model: str
    editors: tuple[str, ...]


Work = Portion | OrderCheck | Inquiry | KeyQuestion


@dataclass(frozen=True)
class Parcel:
    """What came of some work."""

    records: Mapping[str, CaseRecord]  # by key
    facts: tuple[RunFact, ...]  # those that the driver has not been sent yet
    seconds: float = 0.0
    answers: tuple[bool, ...] = ()  # to an inquiry
    remarks: tuple[str, ...] = ()  # what somebody has to hear of
    printed: str = ""  # what editors printed meanwhile
    refused: str = ""  # why an inquiry has no answers
    trouble: str = ""  # why this worker can work no more, whatever it is given: nothing else holds then
