"""Drift: how far the edited matrices have gone from where they were, and whether they are still of the same kind.

Of every changed matrix W against its original W0, both seen as `[d_out, d_in]`, in float64:

    drift_relative   ||W - W0||_F / ||W0||_F
    drift_growth     ||W||_F / ||W0||_F               over a sequence of edits: ENCORE, arXiv 2502.01636
    drift_spectral   s_1(W) / s_1(W0)                 s_1, s_min: largest and smallest singular value
    drift_condition  cond(W) / cond(W0), cond = s_1 / s_min                                  PRUNE, arXiv 2405.16821
    drift_overlap    ||U0_k^T U_k||_F^2 / k           the k leading left singular vectors span the same space: 1;
                                                      k is 5 % of the rank, at least 1       REVIVE, arXiv 2601.11042

and `weights_finite`: 1, or 0 (and broken) when any changed parameter or live sidecar holds what is not finite.

Matrices of up to 1,024 on their shorter side are decomposed as they are. Larger ones go through the Gram matrix of that
side (minutes become seconds): everything is as exact to many digits, but of singular values below 1e-6 of the largest
one nothing can be told, so a condition number past about 1e6 is then a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety.edits.session import EditSession
from editsafety.errors import ModelError
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from editsafety.runs.signals import DRIFT

EXACT = 1024  # shorter side up to which a matrix is decomposed by itself; past it an SVD takes minutes
LEADING = 0.05  # share of the singular vectors that counts as leading (REVIVE, arXiv 2601.11042)

# What is reported of several matrices: the worst. An overlap is the worse the smaller it is.
FIGURES: Mapping[str, Callable[[Sequence[float]], float]] = {
    signal.name: max if signal.collapse == "above" else min for signal in DRIFT
}


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Largest and smallest singular value of a matrix, and its k leading left singular vectors `[d_out, k]`."""

    largest: float
    smallest: float
    leading: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Spectrum:
        """Of a finite float64 matrix `[d_out, d_in]`."""
        rows, columns = matrix.shape
        k = max(1, int(LEADING * min(rows, columns)))
        if min(rows, columns) <= EXACT:
            left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
            return cls(float(values[0]), float(values[-1]), left[:, :k].clone())
        squares, vectors = torch.linalg.eigh(matrix @ matrix.T if rows <= columns else matrix.T @ matrix)
        # Rounding leaves the smallest eigenvalues anywhere below this, negative ones included.
        floor = float(squares[-1]) * len(squares) * torch.finfo(torch.float64).eps
        leading = vectors[:, -k:].flip(1)
        if rows > columns:
            leading = matrix @ leading
            leading = leading / torch.linalg.vector_norm(leading, dim=0)
        return cls(math.sqrt(float(squares[-1])), math.sqrt(max(float(squares[0]), floor)), leading)

    @property
    def condition(self) -> float:
        """Largest over smallest; infinite for a matrix without full rank."""
        return self.largest / self.smallest if self.smallest > 0 else math.inf


class Drift:
    """Measures drift again and again along one course; the originals are decomposed once."""

    def __init__(self) -> None:
        self._originals: dict[str, tuple[float, Spectrum]] = {}

    @torch.no_grad()
    def __call__(self, session: EditSession) -> dict[str, Measurement]:
        """The figures by name, items one per changed matrix in the order of their names.

        Without a value where no matrix was changed; broken where one is not finite any more.
        """
        parameters = dict(session.handle.model.named_parameters(remove_duplicate=False))
        names = [name for name in session.declared() if parameters[name].ndim == 2]
        rows = [self._row(session, name, parameters[name].detach()) for name in names]
        finite = [float(bool(torch.isfinite(parameters[name]).all())) for name in session.declared()]
        finite += [float(bool(torch.isfinite(t).all())) for car in session.sidecars for t in car.tensors().values()]
        whole = min(finite, default=1.0)
        sound = Measurement("weights_finite", 1, "bool", whole, n=len(finite), broken=whole == 0.0)
        return {**{name: _worst(name, [row[name] for row in rows]) for name in FIGURES}, sound.name: sound}

    def _row(self, session: EditSession, name: str, value: Tensor) -> dict[str, float | None]:
        now, was = (_seen(session.handle, name, tensor) for tensor in (value, session.original(name)))
        if not torch.isfinite(now).all() or not torch.isfinite(was).all():
            return dict.fromkeys(FIGURES, math.nan)
        if not was.any():
            return dict.fromkeys(FIGURES)
        if name not in self._originals:
            self._originals[name] = float(torch.linalg.vector_norm(was)), Spectrum.of(was)
        norm, first = self._originals[name]
        later = Spectrum.of(now)
        conditions = later.condition, first.condition
        return {
            "drift_relative": float(torch.linalg.vector_norm(now - was)) / norm,
            "drift_growth": float(torch.linalg.vector_norm(now)) / norm,
            "drift_spectral": later.largest / first.largest,
            "drift_condition": None if math.isinf(conditions[1]) else conditions[0] / conditions[1],
            "drift_overlap": float((first.leading.T @ later.leading).square().sum()) / first.leading.shape[1],
        }


def _seen(handle: ModelHandle, name: str, tensor: Tensor) -> Tensor:
    """A matrix as `[d_out, d_in]` in float64; what belongs to no projection (an embedding) as it is stored."""
    wide = (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
    try:
        site = handle.site(name.rpartition(".")[0])
    except ModelError:
        return wide
    return site.canonical(wide) if site.parameter == name else wide


def _worst(name: str, items: Sequence[float | None]) -> Measurement:
    unit = "share" if name == "drift_overlap" else "ratio"
    present = [item for item in items if item is not None]
    if not present:
        reason = "what is compared with has no full rank" if items else "no matrix was changed"
        return Measurement.missing(name, 1, unit, reason, n=len(items))
    bad = sum(not math.isfinite(item) for item in present)
    kept = tuple(item if item is not None and math.isfinite(item) else None for item in items)
    if bad:
        reason = f"{bad} of {len(items)} changed matrices are not finite, or without full rank"
        return Measurement.missing(name, 1, unit, reason, broken=True, n=len(items), items=kept)
    return Measurement(name, 1, unit, FIGURES[name](present), n=len(items), items=kept)
