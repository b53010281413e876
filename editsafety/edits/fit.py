"""Fit: whether a model can hold an edit."""

from __future__ import annotations

from editsafety.edits.edit import Edit, Replace
from editsafety.errors import EditError
from editsafety.model.handle import ModelHandle


def refuse_unfit(handle: ModelHandle, edit: Edit) -> None:
    """Raise EditError for an edit that this model cannot hold. No weight is read, and nothing is changed."""
    if edit.made_for != handle.identity:
        raise EditError(
            f"this edit by {edit.editor} was made for a model with fingerprint {edit.made_for[:12]}; "
            f"{handle.name} is {handle.identity[:12]}. Load the model that it was made for."
        )
    parameters = dict(handle.model.named_parameters(remove_duplicate=False))
    for delta in edit.deltas:
        if delta.parameter not in parameters:
            raise EditError(f"this edit changes {delta.parameter!r}, which {handle.name} does not have.")
        if isinstance(delta, Replace):
            delta.refuse_unlike(parameters[delta.parameter])
        elif (here := handle.site(delta.site.module)) != delta.site:
            raise EditError(f"this edit was made for {delta.site}; in {handle.name} it is {here}.")
    modules = dict(handle.model.named_modules(remove_duplicate=False))
    for car in edit.sidecars:
        if car.target not in modules:
            raise EditError(f"this edit runs around {car.target!r}, which {handle.name} does not have.")
