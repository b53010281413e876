"""Schedules: in which order and in what portions requests are written into a model, and where it is measured. No torch.

Everything that is asked of a schedule is asked here, so that a new kind is a change of this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from editsafety.errors import UsageError

Kind = Literal["single", "sequential", "batch", "batch-sequential"]
KINDS: tuple[Kind, ...] = ("single", "sequential", "batch", "batch-sequential")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How requests are dealt to an editor.

    - single: one request, one edit, on the unedited model
    - sequential: one request an edit, each on top of the earlier ones; measured after every `every` requests
    - batch: the first n requests as one edit on the unedited model, for every n in `sizes`
    - batch-sequential: `sizes[0]` requests an edit, on top of each other; measured after every `every` requests

    Raises UsageError for sizes or a distance that are not positive, or do not go with the kind.
    """

    kind: Kind
    sizes: tuple[int, ...] = (1,)
    every: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no schedule {self.kind!r}. Known: {', '.join(KINDS)}.")
        if self.every < 1 or not self.sizes or min(self.sizes) < 1:
            raise UsageError(f"schedule {self.kind}: sizes {self.sizes} and every {self.every} must be at least 1.")
        if self.kind in ("single", "sequential") and self.sizes != (1,):
            raise UsageError(f"schedule {self.kind} writes one request an edit; for {self.sizes} use a batch schedule.")
        if self.kind == "batch-sequential" and len(self.sizes) != 1:
            raise UsageError(f"schedule batch-sequential takes one size of batch, not {self.sizes}.")

    @property
    def cumulative(self) -> bool:
        """Whether every edit is made on top of the earlier ones."""
        return self.kind in ("sequential", "batch-sequential")

    def portions(self, requests: int) -> Iterator[range]:
        """Which of so many requests make up each edit. A batch larger than what there is takes all, once."""
        if self.kind == "batch":
            yield from (range(n) for n in dict.fromkeys(min(size, requests) for size in self.sizes) if n)
            return
        for start in range(0, requests, self.sizes[0]):
            yield range(start, min(start + self.sizes[0], requests))

    def on_unedited(self, requests: int) -> Iterator[range]:
        """Those portions that are edited into the unedited model: all of them, or the first."""
        for portion in self.portions(requests):
            yield portion
            if self.cumulative:
                return

    def is_measured(self, done: int, last: int, requests: int) -> bool:
        """Whether the model is measured once `done` of the requests are in it; `last` were at the step before."""
        return not self.cumulative or done - last >= self.every or done == requests

    @property
    def suite(self) -> str:
        """The folder of the suite that judges cases of this schedule."""
        return {"single": "collapse", "sequential": "sequential"}.get(self.kind, "batch")

    @property
    def axis(self) -> str:
        """What the steps of a course count."""
        return "edits so far" if self.cumulative else "facts in one edit"

    def said(self, edits: int) -> str:
        """So many edits of this schedule in words: `a batch of 10 edits`, `1 edit`."""
        batch = "a batch of " if self.kind == "batch" else ""
        return f"{batch}{edits} edit{'' if edits == 1 else 's'}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "sizes": list(self.sizes), "every": self.every}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`."""
        return cls(row["kind"], tuple(row["sizes"]), row["every"])


SINGLE = Schedule("single")
