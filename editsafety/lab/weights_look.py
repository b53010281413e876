"""A look at the weights of an edit, from what was measured of it anyway: no pass, and no further decomposition."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from editsafety.edits.edit import Edit
from editsafety.edits.pattern import BESIDE, ThinChange, is_thin, only_rounded_to, sort_of_change, thin_change
from editsafety.edits.rounding import rounded_to
from editsafety.edits.session import EditSession
from editsafety.lab.bench import Found
from editsafety.model.handle import ModelHandle
from editsafety.runs.weights_look import TensorLook, WeightsLook


def thin_changes(handle: ModelHandle, edit: Edit, found: Found) -> dict[str, ThinChange]:
    """The changes of low rank, by parameter. Expects the weights from before the edit, and what was measured of it."""
    shapes = {name: parameter.shape for name, parameter in handle.model.named_parameters(remove_duplicate=False)}
    ranks = _ranks(edit, found)
    return {
        name: thin_change(handle, edit, name, rank)
        for name, rank in ranks.items()
        if rank is not None and is_thin(rank, shapes[name])
    }


def look_at(
    session: EditSession, edit: Edit, found: Found, thin: Mapping[str, ThinChange], rounded: Collection[str]
) -> WeightsLook:
    """What an edit did that was applied in a session; `rounded` are the parameters that hold what they held before."""
    norms, ranks = _items(edit, found, "delta_norm"), _ranks(edit, found)
    moved = [name for name in edit.parameters if norms.get(name) != 0.0]
    tensors = tuple(TensorLook(name, norms.get(name), ranks.get(name)) for name in moved)
    if not moved:
        return WeightsLook(BESIDE if edit.sidecars else "no weight is changed")
    if all(name in rounded for name in moved):
        now = dict(session.handle.model.named_parameters(remove_duplicate=False))
        types = [rounded_to(session.original(name), now[name].detach()) for name in moved]
        known = [one for one in types if one is not None]
        return WeightsLook(only_rounded_to(known) if known else "too small to change a number of the weights", tensors)
    changes = [thin[name] for name in moved if name in thin]
    whole = [name for name in moved if name not in thin]
    return WeightsLook(sort_of_change(session.handle, changes, whole), tensors)


def _ranks(edit: Edit, found: Found) -> dict[str, int | None]:
    return {name: None if rank is None else int(rank) for name, rank in _items(edit, found, "delta_rank").items()}


def _items(edit: Edit, found: Found, figure: str) -> dict[str, float | None]:
    """A figure of the weights, by parameter; empty where it was not measured of each of them."""
    items = found[figure].items if figure in found else ()
    return dict(zip(edit.parameters, items, strict=True)) if len(items) == len(edit.parameters) else {}
