"""Weights: what an edit does to the matrices, known before any text is run.

Everything is about dW = W_after - W on the model that holds W. Collapse and normal edits of ROME differ 70 to 500 fold
in ||dW||_F (arXiv 2406.11263, table 1); the large share is the relative change of arXiv 2401.04700 (RECT).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from editsafety.edits.edit import Delta, Edit, LowRank
from editsafety.errors import EditError
from editsafety.measures import Inputs
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Column, Measurement
from editsafety.runs.signals import DELTA, NOTED

LARGE = 0.077  # |dW / W|: a single ROME edit has a fifth of its entries above it (arXiv 2401.04700)
NORMS = {signal.name: signal.unit for signal in DELTA}
NOTES = {signal.name: signal.unit for signal in NOTED if signal.measured}
FINITE, RANK = "weights_finite", "delta_rank"
SAME = 1e-6  # of the largest singular value: what is smaller beside it is rounding of the factors or of their product


@dataclass(frozen=True)
class WeightChange:
    """dW of one parameter. Norms are NaN when dW or W is not finite; ratios to ||W|| are None where W is all zero."""

    # ||dW||_F.
    norm: float
    # The largest singular value of dW.
    spectral: float
    # ||dW||_F / ||W||_F.
    relative: float | None
    # ||W + dW||_F / ||W||_F.
    growth: float | None
    # Share of the entries with |dW| > `LARGE` |W|.
    large: float
    # Of dW; None for what is no matrix, or not finite.
    rank: int | None
    # Of the parameter.
    entries: int
    # Whether W + dW is, in the model's dtype.
    finite: bool


class Weights:
    """Per edit:

    - `delta_norm`: sqrt of the sum over parameters of ||dW||_F^2
    - `delta_relative`: ||dW||_F / ||W||_F, the largest over parameters
    - `norm_growth`: ||W + dW||_F / ||W||_F, the largest over parameters; 1 for an edit that changes no weight
    - `delta_per_entry`: ||dW||_F / number of entries, the largest over parameters
    - `delta_large_share`: share of the entries of all changed parameters with |dW| > 0.077 |W|
    - `spectral_norm`: largest singular value of dW, the largest over parameters
    - `delta_rank`: how many directions dW has, the largest over parameters: of factors those that are written, of a
      whole matrix those that no rounding of W + dW can have made (above u ||W + dW||_F, u the unit roundoff)
    - `numerator`, `denominator`, `key_cosine`, `first_token`: what the editor noted about itself
    - `weights_finite`: 1, or 0 (and broken) when the edit would leave a weight that is not finite in the model's dtype

    Items: one per changed parameter, in the order of `Edit.parameters`. Expects the *unedited* weights in the handle.
    """

    name: ClassVar[str] = "weights"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "edit"
    gives: ClassVar[tuple[str, ...]] = (
        "delta_norm", "delta_relative", "delta_per_entry", "delta_large_share", "spectral_norm", "norm_growth",
        "delta_rank", "numerator", "first_token", "denominator", "key_cosine", "weights_finite",
    )  # fmt: skip
    columns: ClassVar[tuple[Column, ...]] = (
        Column("delta_relative", "|dW|/|W|", "update", "dW/W", over="median", order=10, dispensable=True),
    )

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The figures of the edit, always all of them."""
        edit = inputs.edit
        if edit is None:
            every = {**NORMS, RANK: "rank", **NOTES, FINITE: "bool"}
            return tuple(Measurement.missing(name, 1, unit, "no edit was given") for name, unit in every.items())
        changes = [_change(handle, name, deltas) for name, deltas in _by_parameter(edit).items()]
        finite = [float(change.finite) for change in changes]
        finite += [float(_is_finite(tensor)) for car in edit.sidecars for tensor in car.tensors().values()]
        whole = min(finite, default=1.0)
        return (
            *_norms(changes),
            _rank([change.rank for change in changes]),
            *(_note(edit, name, unit) for name, unit in NOTES.items()),
            Measurement(FINITE, 1, "bool", whole, n=len(finite), broken=whole == 0.0, items=tuple(finite)),
        )


def _norms(changes: Sequence[WeightChange]) -> list[Measurement]:
    entries = sum(change.entries for change in changes)
    norms = [change.norm for change in changes]
    shares = [change.large for change in changes]
    share = sum(change.large * change.entries for change in changes) / max(entries, 1)
    return [
        _figure("delta_norm", norms, lambda found: math.hypot(*found)),
        _figure("delta_relative", [change.relative for change in changes], max),
        _figure("delta_per_entry", [change.norm / change.entries for change in changes], max),
        _figure("delta_large_share", shares, lambda _: share),
        _figure("spectral_norm", [change.spectral for change in changes], max),
        _figure("norm_growth", [change.growth for change in changes], max) if changes else _no_growth(),
    ]


def _rank(items: Sequence[int | None]) -> Measurement:
    present = [item for item in items if item is not None]
    if not present:
        reason = "no changed weight is a matrix of finite numbers" if items else "the edit changes no weight"
        return Measurement.missing(RANK, 1, "rank", reason, n=len(items))
    return Measurement(
        RANK, 1, "rank", float(max(present)), n=len(items), items=tuple(None if x is None else float(x) for x in items)
    )


def _no_growth() -> Measurement:
    return Measurement("norm_growth", 1, NORMS["norm_growth"], 1.0, n=1)


def _figure(name: str, items: Sequence[float | None], combine: Callable[[Sequence[float]], float]) -> Measurement:
    present = [item for item in items if item is not None]
    finite = tuple(item if item is not None and math.isfinite(item) else None for item in items)
    if not present:
        reason = "every changed weight was all zero" if items else "the edit changes no weight"
        return Measurement.missing(name, 1, NORMS[name], reason, n=len(items))
    if not all(math.isfinite(item) for item in present):
        reason = f"{sum(not math.isfinite(item) for item in present)} of {len(items)} changed weights are not finite"
        return Measurement.missing(name, 1, NORMS[name], reason, broken=True, n=len(items), items=finite)
    return Measurement(name, 1, NORMS[name], combine(present), n=len(items), items=finite)


def _note(edit: Edit, name: str, unit: str) -> Measurement:
    if name not in edit.notes:
        return Measurement.missing(name, 1, unit, f"{edit.editor} notes no {name}")
    try:
        value = float(edit.notes[name])  # a saved edit holds what is not finite as its name, "nan" or "inf"
    except ValueError:
        return Measurement.missing(name, 1, unit, f"{edit.editor} notes {edit.notes[name]!r} as {name}, no number")
    if not math.isfinite(value):
        return Measurement.missing(name, 1, unit, f"the {name} of {edit.editor} is {value}", broken=True)
    return Measurement(name, 1, unit, value, n=1)


def _by_parameter(edit: Edit) -> dict[str, list[Delta]]:
    return {name: [delta for delta in edit.deltas if delta.parameter == name] for name in edit.parameters}


@torch.no_grad()
def _change(handle: ModelHandle, name: str, deltas: Sequence[Delta]) -> WeightChange:
    weights = dict(handle.model.named_parameters(remove_duplicate=False))
    if name not in weights:
        raise EditError(
            f"this edit changes {name!r}, which {handle.name} does not have. Was it made for another model?"
        )
    weight = weights[name].detach()
    after = weight
    for delta in deltas:
        after = delta.on(after)
    finite, entries = _is_finite(after), weight.numel()
    low = [delta for delta in deltas if isinstance(delta, LowRank)]
    if len(low) == len(deltas):  # several deltas of one weight are one delta of a larger rank
        left, right = torch.cat([d.left for d in low], 1), torch.cat([d.right for d in low], 0)
        values = _values_of_factors(_wide(left), _wide(right))
        norm, noise = float(torch.linalg.vector_norm(values)), 0.0
        dense = low[0].site.stored(left @ right).to(weight.device).float()
    else:
        dense = _wide(after) - _wide(weight)
        norm, values = float(torch.linalg.vector_norm(dense)), _singular_values(dense)
        noise = torch.finfo(weight.dtype).eps / 2 * float(torch.linalg.vector_norm(_wide(after)))
    spectral = float(values.max())
    rank = int((values > max(noise, SAME * spectral)).sum()) if weight.ndim == 2 and math.isfinite(norm) else None
    base = float(torch.linalg.vector_norm(_wide(weight)))
    if not math.isfinite(norm) or not math.isfinite(base):
        return WeightChange(norm, spectral, math.nan, math.nan, math.nan, rank, entries, finite)
    large = dense.abs() > LARGE * weight.to(dense.device, dense.dtype).abs()
    growth = float(torch.linalg.vector_norm(_wide(after))) / base if base else None
    return WeightChange(
        norm, spectral, norm / base if base else None, growth, float(large.double().mean()), rank, entries, finite
    )


def _values_of_factors(left: Tensor, right: Tensor) -> Tensor:
    """Singular values of left @ right from the small factors: QR leaves an r x r core that has the same ones."""
    if not (_is_finite(left) and _is_finite(right)):
        return left.new_tensor([math.nan])
    core = torch.linalg.qr(left).R @ torch.linalg.qr(right.T).R.T
    values: Tensor = torch.linalg.svdvals(core)
    return values


def _singular_values(dense: Tensor) -> Tensor:
    """From the Gram matrix of the shorter side, in float64: far cheaper than an SVD, exact to 1e-8 of the largest."""
    if not _is_finite(dense):
        return dense.new_tensor([math.nan])
    matrix = dense.reshape(1, -1) if dense.ndim < 2 else dense.reshape(dense.shape[0], -1)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares: Tensor = torch.linalg.eigvalsh(matrix @ matrix.T)
    return squares.clamp(min=0.0).sqrt()


def _wide(tensor: Tensor) -> Tensor:
    """float64, where the tensor is if that device knows float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).detach().double()


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


MEASURE = Weights()
