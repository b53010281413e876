"""The linear systems of MEMIT and AlphaEdit, solved at the size of the batch instead of the size of the layer.

Both want X = (B + F F^T)^-1 K, `[m, n]`, where B is large but known beforehand (lambda C, or a multiple of the
identity) and F = [K Q] holds the n keys of the batch and the q keys of earlier edits. By the push-through identity

    X = B^-1 F (I + F^T B^-1 F)^-1, its first n columns:

one product with B^-1 and one system of n + q equations (GPT-2 XL: m = 6,400, a batch of 100: 4,000 times fewer
operations than a fresh solve). With more than m keys the plain system is the smaller one. Everything is float64.

Nothing here raises for keys that are not finite: a model that an earlier edit has broken gives updates that are NaN,
which is a finding of the measures and not of the algebra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from editsafety.errors import EditorError
from editsafety.model.sites import Site

Solve = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Earlier:
    """The keys of earlier edits of one projection: themselves `[m, q]` while q <= m, then M = Q Q^T `[m, m]`.

    Exact either way; what an edit carries never outgrows the layer. Both None before the first edit.
    """

    keys: Tensor | None = None
    moment: Tensor | None = None

    @classmethod
    def read(cls, carry: Mapping[str, Tensor] | None, site: Site) -> Self:
        """The part of an edit's `carry` that belongs to `site`. Raises EditorError when it is of another shape."""
        found = cls(*((carry or {}).get(f"{site.module}.{name}") for name in ("keys", "moment")))
        for tensor in (found.keys, found.moment):
            if tensor is not None and (tensor.ndim != 2 or tensor.shape[0] != site.d_in):
                raise EditorError(
                    f"the earlier keys of {site.module} are {list(tensor.shape)}, expected {site.d_in} rows. "
                    "Give the carry of an edit of this model by this editor."
                )
        return found

    def written(self, site: Site) -> dict[str, Tensor]:
        """The same as entries of `carry`."""
        both = {f"{site.module}.keys": self.keys, f"{site.module}.moment": self.moment}
        return {name: tensor for name, tensor in both.items() if tensor is not None}

    def plus(self, keys: Tensor) -> Earlier:
        """With the keys `[m, n]` of one more batch."""
        if self.moment is not None:
            return Earlier(moment=self.moment.to(keys) + keys @ keys.T)
        known = keys if self.keys is None else torch.cat([self.keys.to(keys), keys], 1)
        return Earlier(known) if known.shape[1] <= known.shape[0] else Earlier(moment=known @ known.T)

    def projected(self, project: Solve) -> Earlier:
        """P Q, or P M P, for a symmetric `project`."""
        keys = None if self.keys is None else project(self.keys)
        moment = None if self.moment is None else project(project(self.moment).T)
        return replace(self, keys=keys, moment=moment)


def regularised(keys: Tensor, earlier: Earlier, *, solve: Solve, matrix: Callable[[], Tensor]) -> Tensor:
    """(B + K K^T + M)^-1 K, `[m, n]` float64.

    Args:
        keys: K `[m, n]`, float64 and where `solve` computes.
        earlier: the keys behind M.
        solve: columns `[m, s]` to B^-1 of them.
        matrix: B itself `[m, m]`, asked for only when there are more keys than dimensions.
    """
    if earlier.moment is None:
        factor = keys if earlier.keys is None else torch.cat([keys, earlier.keys.to(keys)], 1)
        if factor.shape[1] <= factor.shape[0]:
            return small(solve, factor)[:, : keys.shape[1]]
        moment = factor @ factor.T
    else:
        moment = earlier.moment.to(keys) + keys @ keys.T
    return _solved(matrix().to(moment) + moment, keys)[0]


def small(solve: Solve, factor: Tensor) -> Tensor:
    """(B + F F^T)^-1 F, `[m, s]`, through the system of s equations; `solve` is B^-1."""
    spread = solve(factor)
    gram = factor.T @ spread
    gram = gram + torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return _solved(gram, spread.T)[0].T  # gram is symmetric


def constrained(keys: Tensor, spread: Tensor, ridge: float) -> tuple[Tensor, bool]:
    """Y (K^T Y + ridge I)^-1, `[m, n]` float64, for Y = A^-1 K; and whether the pseudo-inverse had to be used.

    It is for keys that say the same twice, so that K^T Y has no inverse.
    """
    gram = keys.to(spread).T @ spread
    gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solved, failed = _solved(gram, spread.T)  # gram is symmetric
    if failed and torch.isfinite(gram).all():
        return spread @ torch.linalg.pinv(gram, hermitian=True), True
    return solved.T, False


def _solved(matrix: Tensor, right: Tensor) -> tuple[Tensor, bool]:
    """matrix^-1 right, and whether the matrix is exactly singular; never raises."""
    solution: Tensor
    solution, info = torch.linalg.solve_ex(matrix, right)
    return solution, bool(info)
