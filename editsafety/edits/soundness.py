"""Soundness: what an edit is made of, looked at while it is made, so that whoever makes it hears of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editsafety.edits.description import FLOATS
from editsafety.errors import EditError


def refuse_no_numbers(what: str, value: object) -> None:
    """Raise EditError for what no weight can be changed by: only dense tensors of real numbers can."""
    if not isinstance(value, Tensor):
        raise EditError(f"{what} is {_named(value)}, expected a tensor.")
    if value.dtype not in FLOATS:
        allowed = ", ".join(_spelled(dtype) for dtype in FLOATS)
        raise EditError(f"{what} is {_spelled(value.dtype)}, expected one of {allowed}. Convert it with .to(dtype).")
    if value.layout != torch.strided:
        raise EditError(f"{what} is stored as {_spelled(value.layout)}, expected all of its entries: use .to_dense().")
    if value.is_meta:
        raise EditError(f"{what} has a shape and no values (device meta), expected a tensor that is in memory.")


def refuse_members(field: str, value: object, *kinds: type) -> None:
    """Raise EditError for what is no tuple or list of these, or holds anything else."""
    allowed = " or ".join(kind.__name__ for kind in kinds)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise EditError(f"{field} of an edit is {_named(value)}, expected a tuple of {allowed}.")
    for number, member in enumerate(value):
        if not isinstance(member, kinds):
            raise EditError(f"{field}[{number}] of an edit is {_named(member)}, expected {allowed}.")


def refuse_named(field: str, value: object, kind: type = object) -> None:
    """Raise EditError for what is no mapping from names to values of a kind."""
    if not isinstance(value, Mapping):
        raise EditError(f"{field} of an edit is {_named(value)}, expected a mapping from names.")
    for name, member in value.items():
        if not isinstance(member, kind):
            raise EditError(f"{field}[{name!r:.40}] of an edit is {_named(member)}, expected {kind.__name__}.")


def _named(value: object) -> str:
    return "None" if value is None else f"of the class {type(value).__name__}"


def _spelled(kind: object) -> str:
    return str(kind).removeprefix("torch.")
