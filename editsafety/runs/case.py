"""Case: one editor, one model, the requests of one schedule: the unit that is run, stored, resumed and judged.

A single edit is the case of one request; requests written on top of each other or in batches are a *course*. No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from editsafety.datasets.request import EditRequest
from editsafety.names import slug, tag
from editsafety.runs.schedule import SINGLE, Schedule

Block = tuple[str, str]  # a model and an editor: cases that share both are computed together


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is asked of an editor at once; the model is afterwards what it was."""

    model: str  # as the user named it
    editor: str  # likewise: a name, path.py:Class, rect(memit)
    stream: str  # "hard" or "normal": which requests these are
    requests: tuple[EditRequest, ...]
    schedule: Schedule = SINGLE
    control: str = ""  # the verdict that a control editor must come to; empty for every other case
    tentative: bool = False  # of a control: whether nobody knows that it comes to that on this model
    probed: bool = False  # whether abilities are measured beside everything else (along courses they always are)
    # Stable, and selectable with -k: `pocket-neo-rome-hardcf-0017`, `pocket-neo-rome-hard-sequential`. Everything is
    # found by it, so it is spelled once.
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        head = f"{slug(self.model)}-{tag(self.editor)}"
        said = f"{head}-{self.stream}-{self.schedule.kind}" if self.is_course else f"{head}-{self.request.slug}"
        object.__setattr__(self, "id", said)

    @property
    def is_course(self) -> bool:
        """Whether several edits or measured models are expected, and not one single edit."""
        return self.schedule.kind != "single"

    @property
    def request(self) -> EditRequest:
        """The request of a single edit; the first one of a course."""
        return self.requests[0]

    @property
    def block(self) -> Block:
        """Model and editor."""
        return self.model, self.editor

    def digest(self) -> str:
        """sha256 of schedule and requests, in their order."""
        return digest_of(self.schedule, (request.digest() for request in self.requests))

    def key(self, shared: str, digest: str = "") -> str:
        """What its record is found by: `shared` stands for all that can change the results of its whole block.

        `digest` is its own, where that is known already.
        """
        return hashlib.sha256(f"{shared}:{digest or self.digest()}:{self.id}".encode()).hexdigest()


def digest_of(schedule: Schedule, requests: Iterable[str]) -> str:
    """The digest of a case from the digests of its requests, which cases share."""
    body = [schedule.as_json(), list(requests)]
    return hashlib.sha256(_IN_ORDER.encode(body).encode()).hexdigest()


_IN_ORDER = json.JSONEncoder(sort_keys=True)
