"""Above: one batch that is run again and again, with another output of one module each time (v* is sought so).

Whatever lies below that module gives the same in every pass, so it is run in the first one and not again: the others
are entered at the module (`engine/layers`). That is tried once per model and module, bit for bit, in a pass more; where
it does not hold, every pass is whole, and so it is where anything runs beside the model, and plainly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from editsafety.engine.layers import Entrance, LowerLayers, enter, record, stands_alone
from editsafety.engine.passes import same_bits
from editsafety.model.handle import ModelHandle


@dataclass(frozen=True, slots=True)
class _Proven:
    """Whether passes that are entered at a module give the bits of whole ones."""

    module: str


@dataclass(eq=False)
class Above:
    """Passes over one batch: the first is whole, of later ones only what lies above a module is run."""

    handle: ModelHandle
    # Where to keep what lies below, in the next pass; None once that is done, or cannot be.
    entrance: Entrance | None
    lower: LowerLayers | None = None

    @classmethod
    def of(cls, handle: ModelHandle, module: str) -> Self:
        """Before the first pass."""
        engine = handle.engine
        barred = engine.plain or not stands_alone(handle) or engine.kept.get(_Proven(module)) is False
        return cls(handle, None if barred else Entrance.at(handle, module))

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around each pass; whoever changes the output of the module sets his hooks inside."""
        if self.lower is not None:
            with enter(self.handle, self.lower):
                yield
        elif self.entrance is not None:
            with record(self.handle, self.entrance) as recording:
                yield
            self.entrance, self.lower = None, recording.lower
        else:
            yield

    @torch.no_grad()
    def prove(self, module: str, whole: Tensor, run: Callable[[], Tensor]) -> None:
        """After the first pass, which came to `whole`: see, unless it is known, that `run` now comes to the same."""
        proven = self.handle.engine.kept
        if self.lower is None or proven.get(_Proven(module)):
            return
        proven[_Proven(module)] = same_bits(run(), whole.detach()) and self.lower.whole
        self.lower = self.lower if proven[_Proven(module)] else None

    def of_rows(self, rows: Sequence[int]) -> Above:
        """For some rows of the batch, in this order; nothing is computed again."""
        return Above(self.handle, self.entrance, None if self.lower is None else self.lower.of_rows(rows))
