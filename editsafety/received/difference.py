"""Comparison: whether two models can be compared at all, in which tensors they differ, by how much, and of what rank.

A rank-one edit is no longer one once it is saved: every entry of W + dW is rounded to the checkpoint's precision, and
these errors have full rank. Rounding to a unit roundoff u moves an entry by at most u |entry|, so it adds no singular
value above u ||W + dW||_F (Weyl). Singular values above that are counted: the rank found is never larger than that of
what was written, and smaller only where directions of it are lost in the rounding (which bfloat16, with u = 1/256,
does to small edits).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from editsafety.edits.behaviour import SENTENCE
from editsafety.edits.factors import PROBES, leading, wide
from editsafety.edits.rounding import NARROW, rounded_to
from editsafety.errors import ModelError
from editsafety.model.handle import ModelHandle

EXACT = 512  # a matrix whose shorter side is longer has the number of its singular values estimated


@dataclass(frozen=True, slots=True)
class Change:
    """How one tensor differs.

    `norm` is ||dW||_F, `relative` ||dW||_F / ||W||_F; None where a tensor is not finite (`not_finite` entries after),
    and `relative` where W is all zero. `entries` of them differ. `rank` is the numerical rank of dW, None for what is
    no matrix; with `at_least` it is a lower bound. `rounded_to` names a dtype when W rounded to it *is* W + dW: then
    nothing was edited.
    """

    name: str
    shape: tuple[int, ...]
    entries: int
    norm: float | None
    relative: float | None
    rank: int | None
    at_least: bool = False
    not_finite: int = 0
    rounded_to: str = ""

    @classmethod
    @torch.no_grad()
    def of(cls, name: str, before: Tensor, after: Tensor) -> Change:
        """The change of one tensor, computed in float64 where its values are."""
        entries = int((before != after).sum())
        shape = tuple(after.shape)
        bad = int((~torch.isfinite(after)).sum())
        if bad or not bool(torch.isfinite(before).all()):
            return cls(name, shape, entries, None, None, None, not_finite=bad)
        was, now = wide(before), wide(after)
        delta = now - was
        norm, base = (float(torch.linalg.vector_norm(tensor)) for tensor in (delta, was))
        narrow = rounded_to(before, after)
        rank: int | None = None
        more = False
        if delta.ndim == 2 and narrow is None:
            rank, more = numerical_rank(delta, rounding_noise(after))
        relative = norm / base if base else None
        return cls(name, shape, entries, norm, relative, rank, more, rounded_to=_named(narrow) if narrow else "")

    @property
    def full_rank(self) -> int:
        """The largest rank that a tensor of this shape can have."""
        return min(self.shape, default=0)

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not known is null."""
        return {**asdict(self), "shape": list(self.shape)}


def rounding_noise(after: Tensor) -> float:
    """The largest singular value that rounding once to the precision of `after` can have made: u ||after||_F."""
    return torch.finfo(precision(after)).eps / 2 * float(torch.linalg.vector_norm(wide(after)))


def precision(tensor: Tensor) -> torch.dtype:
    """The narrowest dtype that holds every value as it is: what the checkpoint was saved in, however it was loaded."""
    for narrow in NARROW:
        if narrow.itemsize < tensor.dtype.itemsize and torch.equal(tensor.to(narrow).to(tensor.dtype), tensor):
            return narrow
    return tensor.dtype


def numerical_rank(delta: Tensor, noise: float) -> tuple[int, bool]:
    """How many singular values of `delta` `[m, n]` are above `noise`, and whether there may be more.

    Of a large matrix only its action on 128 random vectors (seeded) is looked at; their singular values are never
    larger than its own, so that the number can be too small but not too large.
    """
    if min(delta.shape) <= EXACT:
        return int((torch.linalg.svdvals(delta) > noise).sum()), False
    found = int((leading(delta, EXACT)[1] > noise).sum())
    return found, found == PROBES


def differing(before: ModelHandle, after: ModelHandle) -> dict[str, Tensor]:
    """The tensors of `after` that are not equal to those of `before`, by name; NaN is equal to nothing."""
    other = saved(after)
    return {name: other[name] for name, tensor in saved(before).items() if not torch.equal(tensor, other[name])}


def saved(handle: ModelHandle) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds, tied ones once."""
    names = handle.model.state_dict().keys()
    return {name: tensor.detach() for name, tensor in handle.tensors().items() if name in names}


def refuse_unlike(before: ModelHandle, after: ModelHandle, texts: Iterable[str]) -> None:
    """Raise ModelError unless the second can have been made from the first by changing weights.

    Architecture, vocabulary, names and shapes of all tensors, and the ids of `texts` have to be the same.
    """
    kinds = [handle.kind for handle in (before, after)]
    if kinds[0] != kinds[1]:
        raise ModelError(
            f"{after.name} is a {kinds[1]}, {before.name} a {kinds[0]}: they have no weights in common. "
            "Give the model that it was made from."
        )
    words = [handle.model.get_input_embeddings().weight.shape[0] for handle in (before, after)]
    if words[0] != words[1]:
        raise ModelError(
            f"{after.name} has a vocabulary of {words[1]}, {before.name} one of {words[0]}: tokens were added or "
            "removed, so their perplexities cannot be compared. Give the model that it was made from."
        )
    _refuse_other_shapes(before, after, saved(before), saved(after))
    for text in (SENTENCE, *texts):
        if before.ids(text) != after.ids(text):
            raise ModelError(
                f"the tokenizers of {before.name} and {after.name} differ: {text[:60]!r} has the ids "
                f"{before.ids(text)[:8]} and {after.ids(text)[:8]}. Give the model that it was made from."
            )


def _refuse_other_shapes(
    before: ModelHandle, after: ModelHandle, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> None:
    lacking, added = sorted(mine.keys() - theirs.keys()), sorted(theirs.keys() - mine.keys())
    if lacking or added:
        said = f"{after.name} lacks {lacking[0]!r}" if lacking else f"{before.name} lacks {added[0]!r}"
        raise ModelError(
            f"{before.name} and {after.name} do not have the same tensors: {said} "
            f"({len(lacking) + len(added)} in all). Give the model that it was made from."
        )
    for name, tensor in mine.items():
        both = [f"{_named(one.dtype)} {list(one.shape)}" for one in (tensor, theirs[name])]
        if both[0] != both[1]:
            raise ModelError(
                f"{name} is {both[0]} in {before.name} and {both[1]} in {after.name}. "
                "Give the model that it was made from."
            )


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
