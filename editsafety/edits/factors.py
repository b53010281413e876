"""Factors: what was added to a matrix, as two thin factors, where that is what was added.

Every entry of W + dW is rounded when it is written, which adds a little to every direction. So the singular values of
the difference are counted that no rounding can have made (more than u ||W + dW||_F, u the unit roundoff: Weyl), and
the factors are taken only if writing them again gives the same matrix up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from editsafety.edits.edit import LowRank
from editsafety.model.sites import Site

MOST = 64  # of a larger rank nobody would call low
PROBES = 128  # random directions through which a large matrix is looked at
ROUNDINGS = 4  # units in the last place of the largest entry by which the matrix may be missed


@torch.no_grad()
def low_rank(site: Site, before: Tensor, after: Tensor) -> LowRank | None:
    """The difference of two values of a site's weight (as stored) in factors; None where it is no product of thin ones.

    Raises nothing: what is not finite has no factors.
    """
    if not bool(torch.isfinite(after).all() and torch.isfinite(before).all()):
        return None
    delta = site.canonical(wide(after)) - site.canonical(wide(before))
    left, values, right = leading(delta)
    unit = torch.finfo(after.dtype).eps
    rank = int((values > unit / 2 * float(torch.linalg.vector_norm(wide(after)))).sum())
    if not 0 < rank <= min(MOST, min(delta.shape) // 4):
        return None
    made = LowRank(site, (left[:, :rank] * values[:rank]).float(), right[:rank].float())
    missed = (wide(made.on(before)) - wide(after)).abs().max()
    return made if float(missed) <= ROUNDINGS * unit * float(after.abs().max()) else None


def leading(delta: Tensor, exact: int = 2 * PROBES) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values `[m, k]`, `[k]`, `[k, n]`: all of a small matrix, the 128 largest of a large one.

    Of one whose shorter side is past `exact` its action on 128 random vectors (seeded) is looked at; what is found is
    never larger than its own.
    """
    if min(delta.shape) <= exact:
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        return left, values, right
    draw = torch.randn(delta.shape[1], PROBES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.linalg.qr(delta @ draw.to(delta)).Q
    basis = torch.linalg.qr(delta @ (delta.T @ basis)).Q
    left, values, right = torch.linalg.svd(basis.T @ delta, full_matrices=False)
    return basis @ left, values, right


def wide(tensor: Tensor) -> Tensor:
    """float64, where the tensor is if that device knows float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).detach().double()
