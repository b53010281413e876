"""Pattern of what was handed over: its whole tensors taken apart first. No pass is run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from editsafety.edits.edit import Delta, Edit, LowRank
from editsafety.edits.factors import wide
from editsafety.edits.pattern import (
    BESIDE,
    ThinChange,
    is_thin,
    only_quantised_to,
    only_rounded_to,
    sort_of_change,
    thin_change,
)
from editsafety.edits.rounding import quantised_to, rounded_to
from editsafety.model.handle import ModelHandle
from editsafety.received.difference import numerical_rank, rounding_noise
from editsafety.received.receiving import with_factors


def pattern_of(handle: ModelHandle, edit: Edit) -> str:
    """One sentence; empty where nothing differs. `edit` holds whole tensors or factors, of the unedited model.

    What is only written down in fewer bits was not edited: the sentence is on the rest, where there is any.
    """
    if not edit.deltas:
        return BESIDE if edit.sidecars else ""
    before = dict(handle.model.named_parameters(remove_duplicate=False))
    values = {delta.parameter: delta.on(before[delta.parameter].detach()) for delta in edit.deltas}
    narrow = {name: rounded_to(before[name].detach(), value) for name, value in values.items()}
    types = {name: one for name, one in narrow.items() if one is not None}
    if len(types) == len(values):
        return only_rounded_to(types.values())
    packed = {name: quantised_to(before[name].detach(), value) for name, value in values.items() if name not in types}
    bits = {name: one for name, one in packed.items() if one is not None}
    written = [delta for delta in edit.deltas if delta.parameter not in {*types, *bits}]
    if not written:
        return only_quantised_to(bits.values())
    factored = with_factors(handle, replace(edit, deltas=tuple(written)))
    found = {delta.parameter: _thin(handle, factored, delta, before[delta.parameter]) for delta in factored.deltas}
    thin = [change for change in found.values() if change is not None]
    said = sort_of_change(handle, thin, [name for name, change in found.items() if change is None])
    rest = [
        *([only_rounded_to(types.values())] if types else []),
        *([only_quantised_to(bits.values())] if bits else []),
    ]
    return "; the others ".join([said, *rest])


@torch.no_grad()
def _thin(handle: ModelHandle, edit: Edit, delta: Delta, before: Tensor) -> ThinChange | None:
    """A change of low rank; None for any other."""
    if isinstance(delta, LowRank):
        return thin_change(handle, edit, delta.parameter, delta.left.shape[1])
    # No factors give it to the last bit: an embedding, or what was rounded once more. Its rank is told all the same.
    after = delta.on(before.detach())
    change = wide(after) - wide(before)
    if change.ndim != 2 or not bool(torch.isfinite(change).all()):
        return None
    rank, _ = numerical_rank(change, rounding_noise(after))
    return thin_change(handle, edit, delta.parameter, rank) if is_thin(rank, after.shape) else None
