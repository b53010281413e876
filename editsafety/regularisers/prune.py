"""PRUNE: the singular values of all that a sequence has changed are kept near those of the weights it began with.

Per matrix, with W0 from before the sequence, dW all that the edits so far add, and s0 the largest singular value of W0:

    dW = U S V^T        s' = s where s < s0, else log_a(s) - log_a(s0) + s0        W = W0 + U S' V^T

The published code applies this once, behind the last edit; every edit before it was computed on weights that nothing
restrained. So that a sequence can be looked at anywhere, `carry` holds W0 and the unrestrained weights: each inner edit
is computed on those, and the edit that is returned makes the model W0 + U S' V^T. After any number of edits the model
is exactly what the published procedure gives when the sequence ends there.

AlphaEdit's copy adds the restrained change to the already edited weight, W0 + dW + dW', which is not meant; here it is
W0 + dW'. With a small base the logarithm is steeper than 1 behind s0 (where s0 < 1 / ln a: 5.5 for 1.2, 1 for e) and
singular values there *grow*; the note `prune_raised` counts them. What is not a matrix (a bias) is left unrestrained,
and so is a change that is not finite: a broken edit must not look mended.

While every edit is low-rank, singular values come from the small factors; otherwise from a full decomposition, unless
||dW||_F < s0 says that nothing needs one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Traits
from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.hyperparameters import Hparams
from editsafety.regularisers import Regulariser, StoredChange, changes, norm, wide

INNER = "inner."
Base = Annotated[float, Field(gt=1.0)] | Literal["linear"]


class PruneHparams(Hparams):
    """`prune_base`: the base a of the logarithm, or "linear": s' = (s + s0) / 2.

    The default is that of the class in PRUNE's own repository. Its README and AlphaEdit's copy (experiments/evaluate.py
    at f5248d3) have e, the paper another base per method and model. Measured on pocket-neo, over single ROME edits:
    both keep perplexity on hard cases within 1 %, but e holds normal edits so close to s0 that a third does not take.
    """

    prune_base: Base = 1.2


@dataclass(frozen=True, eq=False)
class Track:
    """One parameter since the start of a sequence, as the model stores it."""

    # W0, in the model's dtype.
    start: Tensor
    # W0 + dW as it would be without PRUNE, in the model's dtype.
    free: Tensor
    # s0, a float64 scalar; infinite for what is no finite matrix.
    bound: Tensor
    # `[rows, r]`; multiplies with `flat` to dW while all edits have been low-rank.
    tall: Tensor | None = None
    # `[r, columns]`.
    flat: Tensor | None = None

    @classmethod
    def first(cls, change: StoredChange) -> Track:
        """A parameter that the sequence has not touched yet; `change` is about to."""
        matrix = wide(change.before)
        if matrix.ndim != 2 or not torch.isfinite(matrix).all():
            return cls(change.before.clone(), change.before, matrix.new_tensor(math.inf))
        short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        # The largest eigenvalue of the Gram matrix of the shorter side: far cheaper than a decomposition, as exact.
        bound = torch.linalg.eigvalsh(short @ short.T)[-1].clamp(min=0).sqrt()
        none = matrix.new_zeros(matrix.shape[0], 0), matrix.new_zeros(0, matrix.shape[1])
        return cls(change.before.clone(), change.before, bound, *none)

    def grown(self, change: StoredChange) -> Track:
        """With one more change, that was computed on `free`."""
        if change.factors is None or self.tall is None or self.flat is None:
            return Track(self.start, change.after, self.bound)
        tall, flat = torch.cat([self.tall, change.factors[0]], 1), torch.cat([self.flat, change.factors[1]], 0)
        if tall.shape[1] > min(self.start.shape):  # larger than the matrix itself
            return Track(self.start, change.after, self.bound)
        return Track(self.start, change.after, self.bound, tall, flat)

    @property
    def delta(self) -> Tensor:
        """What the sequence has changed so far, dW, in float64."""
        if self.tall is not None and self.flat is not None:
            return self.tall @ self.flat
        return wide(self.free) - wide(self.start)

    def decompose(self) -> tuple[Tensor, Tensor, Tensor]:
        """U `[rows, k]`, S `[k]` falling, V^T `[k, columns]` of dW; of low rank: from that of an r x r matrix."""
        if self.tall is None or self.flat is None:
            left, values, right = torch.linalg.svd(self.delta, full_matrices=False)
            return left, values, right
        first, second = torch.linalg.qr(self.tall), torch.linalg.qr(self.flat.T)
        left, values, right = torch.linalg.svd(first.R @ second.R.T)
        return first.Q @ left, values, right @ second.Q.T


@dataclass(frozen=True, eq=False)
class Restrained:
    """What becomes of one parameter."""

    # The parameter, whole.
    value: Tensor
    # The largest s / s0.
    excess: float = 0.0
    # How many singular values became smaller.
    lowered: int = 0
    # How many became larger.
    raised: int = 0


class Prune(Regulariser):
    """Perturbation Restraint on Upper bouNd for Editing."""

    Own = PruneHparams
    traits: ClassVar[Traits] = Traits(
        paper="Perturbation-Restrained Sequential Model Editing, ICLR 2025, arXiv 2405.16821",
        reference="https://github.com/mjy1111/PRUNE",
    )

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """What makes the model W0 + U S' V^T of the sequence up to and with `requests`, as whole parameters.

        Notes: those of the inner editor; prune_restrained and prune_raised (numbers of singular values that became
        smaller and larger), prune_excess (the largest s / s0, where singular values had to be taken), prune_inner_norm
        and update_norm (of the inner change, and of what this edit changes), Frobenius.
        """
        carry = carry or {}
        tracks = _tracks(carry)
        within = {name.removeprefix(INNER): tensor for name, tensor in carry.items() if name.startswith(INNER)}
        with self._unrestrained(tracks):
            made = self.inner_edit(requests, within or None)
            found = changes(self.handle, made)
        for name, change in found.items():
            tracks[name] = (tracks[name] if name in tracks else Track.first(change)).grown(change)
        done = {name: restrain(tracks[name], self.hparams.prune_base) for name in found}
        parameters = {name: self.handle.model.get_parameter(name) for name in found}
        notes = {
            "prune_restrained": float(sum(one.lowered for one in done.values())),
            "prune_raised": float(sum(one.raised for one in done.values())),
            "prune_excess": max((one.excess for one in done.values()), default=0.0),
            "prune_inner_norm": norm(change.delta for change in found.values()),
            "update_norm": norm(wide(done[name].value) - wide(parameters[name]) for name in found),
        }
        kept = {INNER + name: tensor for name, tensor in (made.carry or {}).items()}
        return replace(
            made,
            editor=self.name,
            deltas=tuple(Replace(name, one.value) for name, one in done.items()),
            notes={**made.notes, **notes},
            carry={**kept, **_carried(tracks)},
        )

    @contextmanager
    def _unrestrained(self, tracks: Mapping[str, Track]) -> Iterator[None]:
        """The model as the edits so far would have left it without PRUNE."""
        if not tracks:
            yield
            return
        deltas = tuple(Replace(name, track.free) for name, track in tracks.items())
        with EditSession(self.handle) as session:
            session.apply(Edit(self.name, (), self.handle.identity, deltas))
            yield


@torch.no_grad()
def restrain(track: Track, base: float | Literal["linear"]) -> Restrained:
    """A parameter with the singular values of its change restrained.

    Raises EditorError when the weight before the sequence is all zero: then there is no scale to restrain to.
    """
    free, delta, bound = Restrained(track.free), track.delta, float(track.bound)
    if delta.ndim != 2 or not torch.isfinite(delta).all() or float(torch.linalg.vector_norm(delta)) <= bound:
        return free
    if bound == 0.0:
        raise EditorError("prune: a weight that was all zero before the first edit has no largest singular value.")
    left, values, right = track.decompose()
    excess, over = float(values[0]) / bound, values >= bound
    if not over.any():
        return replace(free, excess=excess)
    old = values[over]
    new = (old + bound) / 2 if base == "linear" else bound + (old / bound).log() / math.log(base)
    value = wide(track.start) + delta + left[:, over] * (new - old) @ right[over]
    value = value.to(device=track.start.device, dtype=track.start.dtype)
    return Restrained(value, excess, int((new < old).sum()), int((new > old).sum()))


def _carried(tracks: Mapping[str, Track]) -> dict[str, Tensor]:
    found = {
        f"{part.name}.{name}": getattr(track, part.name) for name, track in tracks.items() for part in fields(track)
    }
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _tracks(carry: Mapping[str, Tensor]) -> dict[str, Track]:
    names = [name.removeprefix("start.") for name in carry if name.startswith("start.")]
    return {
        name: Track(
            carry[f"start.{name}"],
            carry[f"free.{name}"],
            carry[f"bound.{name}"],
            carry.get(f"tall.{name}"),
            carry.get(f"flat.{name}"),
        )
        for name in names
    }


REGULARISER = Prune
