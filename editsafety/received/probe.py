"""Probe: what a model gives on one text, to tell another function apart where weights look alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from editsafety.edits.behaviour import CLOSE, SENTENCE, apart
from editsafety.errors import ModelError, sentence_of
from editsafety.model.handle import ModelHandle

PROBED = 8  # positions whose logits are compared


@dataclass(frozen=True, eq=False)
class ServedProbe:
    """Ids of a text and the last logits behind it, float32 `[8, vocab]` or fewer, on the CPU."""

    ids: tuple[int, ...]
    logits: Tensor

    @classmethod
    def of(cls, handle: ModelHandle, texts: Sequence[str]) -> Self:
        """On the longest text that fits: what a config says about positions and windows shows late.

        Raises ModelError for a model that cannot be run.
        """
        rows = [handle.ids(text) for text in (SENTENCE, *texts)]
        ids = max((row for row in rows if len(row) <= handle.context), key=len)
        try:
            return cls(tuple(ids), _last(handle, ids))
        except Exception as error:  # what a config asks for may be nonsense that shows when the model is run
            raise ModelError(
                f"{handle.name} cannot be run: {sentence_of(error)}. Is its config.json its own?"
            ) from error

    def agrees(self, handle: ModelHandle) -> bool:
        """Whether another model gives the same, up to the rounding of its dtype."""
        return apart(_last(handle, self.ids), self.logits) <= CLOSE[handle.spec.dtype]


@torch.no_grad()
def _last(handle: ModelHandle, ids: Sequence[int]) -> Tensor:
    return handle.logits(handle.batch([ids]))[0, -PROBED:].cpu()
