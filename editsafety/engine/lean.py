"""Lean: passes over one batch in which the tokens that nobody reads are left out of the MLPs.

An MLP looks at each token by itself, so it is run for the tokens that matter and for no others. What stands behind the
last token that is read of a row, padding included, reaches nothing that is read; and of the last block's own output
only the tokens that are read matter at all. In all other places there is zero.

    MLP of a block                                      up to the last token of each row that is read
    MLP and projection out of attention, last block     tokens that are read

A product of another size is rounded in another way, so this is exact up to rounding. That is tried once per model and
module: a pass with all tokens and one without must come to the same. The projections of the other attentions could be
treated alike: it was tried, and choosing the tokens took as long as it saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from editsafety.engine.layers import Entrance, mlp_of, standing_in, stands_alone
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle

# Of the largest log-probability, in units of rounding: whole and lean passes of float32 are some 10 apart.
APART = 200


@dataclass(frozen=True, slots=True)
class _KnownExact:
    """Whether lean passes, where the output of a module is changed, come to what whole ones do."""

    module: str


@dataclass(frozen=True, slots=True, eq=False)
class Lean:
    """How passes over a batch `[rows, seq]` are run in which the output of a module is changed."""

    handle: ModelHandle
    module: str
    shape: tuple[int, int]
    # Places in the flattened batch: tokens that what is read hangs on, and those that are read of the last block.
    needed: Tensor
    read: Tensor

    @classmethod
    def of(cls, handle: ModelHandle, module: str, ids: Tensor, read: Sequence[tuple[int, int]]) -> Self | None:
        """For a batch of `ids`, of which the pairs (row, place) are read; None where every token has to be run."""
        if handle.engine.plain or not stands_alone(handle) or Entrance.at(handle, module) is None:
            return None
        rows, places = torch.tensor(read).T
        count, width = ids.shape
        last = torch.zeros(count, dtype=torch.long).scatter_reduce(0, rows, places, "amax")
        needed = (torch.arange(width) <= last[:, None]).flatten().nonzero().flatten()
        found = (rows * width + places).unique()
        return cls(handle, module, (count, width), needed.to(handle.device), found.to(handle.device))

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around each pass but the first; nothing is left out where it does not hold."""
        holds = self.handle.engine.kept.get(_KnownExact(self.module), False)
        with standing_in(self.handle.model, self._stand_ins() if holds else {}):
            yield

    @torch.no_grad()
    def prove(self, whole: Tensor, run: Callable[[], Tensor]) -> None:
        """After a whole pass, which came to `whole`: see, unless it is known, that `run` now comes to the same."""
        proven, finite = self.handle.engine.kept, whole.isfinite()
        if _KnownExact(self.module) in proven or not finite.any():
            return  # a broken model proves nothing
        proven[_KnownExact(self.module)] = True
        expected = whole[finite]
        allowed = APART * torch.finfo(self.handle.model.dtype).eps * max(1.0, float(expected.abs().max()))
        proven[_KnownExact(self.module)] = float((run()[finite] - expected).abs().max()) <= allowed

    def _stand_ins(self) -> Mapping[str, Callable[..., Any]]:
        entrance, last = Entrance.at(self.handle, self.module), self.handle.layers - 1
        assert entrance is not None
        tokens: dict[str, Tensor] = {}
        for layer in range(entrance.layer + entrance.inside, last + 1):
            tokens |= dict.fromkeys(mlp_of(self.handle, layer), self.needed if layer < last else self.read)
        if entrance.layer + entrance.inside <= last:
            tokens |= dict.fromkeys(self.handle.architecture.modules(Part.ATTENTION_OUT, last), self.read)
        get = self.handle.model.get_submodule
        return {part: SomeTokens(get(part).forward, self.shape, chosen) for part, chosen in tokens.items()}


@dataclass(frozen=True, slots=True, eq=False)
class SomeTokens:
    """Stands in for a part of which only some tokens are wanted; the others are zero."""

    own: Callable[..., Any]
    # Rows and columns of the batch.
    shape: tuple[int, int]
    # Places in the flattened batch.
    chosen: Tensor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the part gives for the chosen tokens, or for all where it does not take `[rows, seq, d]`."""
        if kwargs or not all(isinstance(one, Tensor) and one.ndim == 3 and one.shape[:2] == self.shape for one in args):
            return self.own(*args, **kwargs)
        given = self.own(*(one.flatten(0, 1).index_select(0, self.chosen.to(one.device))[None] for one in args))
        if not isinstance(given, Tensor) or given.shape[:2] != (1, len(self.chosen)):
            return self.own(*args)
        whole = given.new_zeros(self.shape[0] * self.shape[1], given.shape[-1])
        return whole.index_copy(0, self.chosen.to(given.device), given[0]).view(*self.shape, -1)
