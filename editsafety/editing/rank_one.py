"""The closed-form rank-one update of ROME: W' = W + r u^T, which sends one key where v* wants it.

    u = C^-1 k_u / ||C^-1 k_u||          (C left out without second-moment adjustment)
    r = (v* - o) / (k . u)

ROME, eq. 2. Which key goes where is what the family differs in: published ROME takes k_u from the mean over prefixed
prompts and k, o from the bare prompt, so that the denominator k . u is no quadratic form and may vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety.edits.edit import LowRank
from editsafety.model.sites import Site

Solve = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class RankOne:
    """The update and the figures that tell a normal one from a collapsing one; see `update`."""

    delta: LowRank
    numerator: float
    denominator: float
    cosine: float
    norm: float


def update(site: Site, *, direction_key: Tensor, key: Tensor, output: Tensor, value: Tensor, solve: Solve) -> RankOne:
    """The delta after which `site` sends `key` to `value`, if it sent it to `output` before.

    Args:
        site: the projection, W `[d_out, d_in]`.
        direction_key: k_u `[d_in]`; `solve` (C^-1, or the identity) makes the direction u of it.
        key: k `[d_in]`, of the denominator k . u.
        output: o `[d_out]`, the projection's output (with its bias) for `key`.
        value: v* `[d_out]`.
        solve: `[d_in]` to `[d_in]`.

    Returns:
        The delta with its numerator ||v* - o||, denominator k . u, cosine of the two keys, and Frobenius norm.
    """
    direction = solve(direction_key)
    direction = direction / direction.norm()
    residual = value - output
    denominator = key @ direction
    left = residual / denominator
    cosine = torch.nn.functional.cosine_similarity(direction_key, key, dim=0)
    return RankOne(
        LowRank(site, left[:, None], direction[None, :]),
        residual.norm().item(),
        denominator.item(),
        cosine.item(),
        left.norm().item(),  # ||r u^T||_F, as u has norm 1
    )
