"""Checkpoint: an edited model half way along a course, in one file: weights as they are, live sidecars, the carry.

Only what was changed is in it. It is written whole or not at all, with a sha256 of every tensor, and says which course,
model and step it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from editsafety import tensor_files
from editsafety.edits.edit import Edit, Replace, Sidecar
from editsafety.edits.session import EditSession
from editsafety.errors import EditSafetyError, StoreError

WHAT = "course"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """`state` makes the unedited model what it was; `steps` were measured by then, `edits` requests were in it."""

    state: Edit
    carry: Mapping[str, Tensor] | None
    steps: int
    edits: int


def save(
    path: Path, session: EditSession, carry: Mapping[str, Tensor] | None, *, course: str, steps: int, edits: int
) -> None:
    """Write the state of a session. Raises StoreError when the file cannot be written."""
    parameters = dict(session.handle.model.named_parameters(remove_duplicate=False))
    tensors = {f"weight.{name}": parameters[name].detach() for name in session.declared()}
    cars: list[dict[str, Any]] = []
    for i, car in enumerate(session.sidecars):
        tensors |= {f"sidecar{i}.{name}": tensor for name, tensor in car.tensors().items()}
        cars.append({"kind": car.kind, "target": car.target, "settings": dict(car.settings())})
    tensors |= {f"carry.{name}": tensor for name, tensor in (carry or {}).items()}
    about = {
        "what": WHAT,
        "course": course,
        "model": session.handle.identity,
        "steps": steps,
        "edits": edits,
        "sidecars": cars,
        "carries": carry is not None,
        "devices": {name: str(tensor.device) for name, tensor in tensors.items()},
    }
    try:
        tensor_files.save(path, tensors, about)
    except OSError as error:
        raise StoreError(f"{path}: the checkpoint cannot be written ({error}). Make room, and run again.") from error


def load(path: Path, editor: str, made_for: str, sidecars: Mapping[str, type[Sidecar]], *, course: str) -> Checkpoint:
    """Read what `save` wrote, every tensor on the device where it was.

    Raises EditSafetyError when the file is damaged, or of another course or model.
    """
    tensors, about = tensor_files.load(path)
    if about.get("what") != WHAT:
        raise EditSafetyError(f"{path}: holds {about.get('what', 'something else')!r}, not a course half way.")
    if about.get("course") != course or about.get("model") != made_for:
        kind = "course" if about.get("course") != course else "model"
        raise EditSafetyError(f"{path}: belongs to another {kind} ({str(about.get(kind))[:12]}).")
    try:
        tensors = {name: tensor.to(about["devices"][name]) for name, tensor in tensors.items()}
        cars = tuple(
            sidecars[row["kind"]].rebuild(row["target"], _under(f"sidecar{i}.", tensors), row["settings"])
            for i, row in enumerate(about["sidecars"])
        )
        weights = tuple(Replace(name, value) for name, value in _under("weight.", tensors).items())
        carry = _under("carry.", tensors) if about["carries"] else None
        return Checkpoint(Edit(editor, (), made_for, weights, cars), carry, int(about["steps"]), int(about["edits"]))
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise EditSafetyError(f"{path}: cannot be put together again here ({error!r}).") from error


def _under(head: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
