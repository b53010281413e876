"""Pattern of what was handed over: its whole tensors taken apart first. No pass is run."""

from __future__ import annotations

from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.pattern import BESIDE, ThinChange, only_quantised_to, only_rounded_to, sort_of_change
from editsafety.edits.rounding import quantised_to, rounded_to
from editsafety.model.handle import ModelHandle
from editsafety.received.receiving import with_factors


def pattern_of(handle: ModelHandle, edit: Edit) -> str:
    """One sentence; empty where nothing differs. `edit` holds whole tensors or factors, of the unedited model."""
    if not edit.deltas:
        return BESIDE if edit.sidecars else ""
    before = dict(handle.model.named_parameters(remove_duplicate=False))
    values = {delta.parameter: delta.on(before[delta.parameter].detach()) for delta in edit.deltas}
    narrow = [rounded_to(before[name].detach(), value) for name, value in values.items()]
    types = [one for one in narrow if one is not None]
    if len(types) == len(narrow):
        return only_rounded_to(types)
    packed = [quantised_to(before[name].detach(), value) for name, value in values.items()]
    bits = [one for one in packed if one is not None]
    if bits and len(bits) == len(packed):
        return only_quantised_to(bits)
    deltas = with_factors(handle, edit).deltas
    thin = [_thin(delta) for delta in deltas if isinstance(delta, LowRank)]
    return sort_of_change(handle, thin, len(deltas) - len(thin))


def _thin(delta: LowRank) -> ThinChange:
    rank = delta.left.shape[1]
    return ThinChange(delta.site.module, rank, delta.left[:, 0] if rank == 1 else None)
