"""Unpadded: passes over texts in which padding is left out of the MLPs, bit for bit what they give with it.

Rows of one batch are of nearly one length, and a fifth of it is padding all the same. Nothing that is read comes from
there: padding stands behind the text, and a causal model does not see ahead. An MLP looks at each token by itself, so
it is run for the tokens of the texts, in the last block for those that another one follows; elsewhere there is zero.

A product of fewer rows gives each row the bits that it has among others with the libraries that are in use, but nobody
promises that: `engine/passes` tries it for every batch that it keeps, and runs all tokens where it does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor
from torch.nn import functional

from editsafety.engine.layers import LowerLayers, down_projection, mlp_of, standing_in
from editsafety.engine.lean import SomeTokens
from editsafety.model.handle import Batch, ModelHandle

LEAST = 1 / 32  # of a batch that has to be padding; of less, choosing the tokens takes as long as it saves


@dataclass(frozen=True, slots=True, eq=False)
class Unpadded:
    """Where the tokens of a batch `[rows, seq]` are, by their places in the flattened batch."""

    shape: tuple[int, int]
    # Tokens of texts, and those of them that another one follows.
    tokens: Tensor
    followed: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Self | None:
        """None where there is hardly any padding."""
        count, width = batch.ids.shape
        tokens = batch.mask.flatten().nonzero().flatten()
        if len(tokens) > count * width * (1 - LEAST):
            return None
        followed = functional.pad(batch.mask[:, 1:], (0, 1)).flatten().nonzero().flatten()
        return cls((count, width), tokens, followed)

    @contextmanager
    def passing(self, handle: ModelHandle, lower: LowerLayers) -> Iterator[None]:
        """Around a pass over this batch, inside of `enter`."""
        get, entrance, last = handle.model.get_submodule, lower.entrance, handle.layers - 1
        stand_ins: dict[str, Callable[..., Any]] = {}
        for layer in range(entrance.layer, last + 1):
            chosen = self.tokens if layer < last else self.followed
            for name in mlp_of(handle, layer):
                if layer > entrance.layer or lower.received is None:
                    stand_ins[name] = SomeTokens(get(name).forward, self.shape, chosen)
                else:
                    projection = SomeTokens(get(down_projection(handle, layer)), self.shape, chosen)
                    stand_ins[name] = _OfReceived(projection, lower.received)
        with standing_in(handle.model, stand_ins):
            yield


@dataclass(frozen=True, slots=True, eq=False)
class _OfReceived:
    """Stands in for an MLP of which only the down-projection is run."""

    projection: SomeTokens
    received: Tensor

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.projection(self.received)
