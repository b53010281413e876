"""EditStore: edits of the unedited model that a run needs more than once, so that none is computed twice.

A single edit, the first one of a sequence, a batch of one and the edit that bisection tries alone are the same edit. It
is found by everything that can change it, comes back from its file bit for bit, and is shared between workers.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editsafety import tensor_files
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit, Sidecar
from editsafety.errors import EditSafetyError, StoreError
from editsafety.lab.attempt import Made
from editsafety.runs.case_record import Cost, plain_notes

LARGEST = 256 * 2**20  # bytes; what is larger is computed again rather than written and read


def edit_key(shared: str, requests: Sequence[EditRequest]) -> str:
    """sha256 of what can change an edit of the unedited model; `shared` stands for model, editor and settings."""
    body = ":".join([shared, *(request.digest() for request in requests)])
    return hashlib.sha256(body.encode()).hexdigest()


class EditStore:
    """A folder of edits, each with what it carries and what it cost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, key: str, made: Made) -> None:
        """Keep an edit. Raises StoreError when it cannot be written.

        One that is larger than LARGEST is not kept, nor one that holds tensors which overlap themselves.
        """
        carry = made.edit.carry or {}
        tensors = [*made.edit.tensors().values(), *carry.values()]
        if _size(tensors) > LARGEST or any(map(_overlaps, tensors)):
            return
        about = {
            "cost": asdict(made.cost),
            "leftovers": list(made.leftovers),
            "carries": made.edit.carry is not None,
            "edit": {name: _place(tensor) for name, tensor in made.edit.tensors().items()},
            "carry": {name: _place(tensor) for name, tensor in carry.items()},
        }
        try:
            # The edit itself comes last: where it is, the rest is too.
            tensor_files.save(self._beside(key), carry, about)
            replace(made.edit, notes=plain_notes(made.edit.notes)).save(self._file(key))
        except OSError as error:
            raise StoreError(f"{self.folder}: an edit cannot be kept ({error}). Make room, and run again.") from error

    def get(self, key: str, requests: tuple[EditRequest, ...], sidecars: Mapping[str, type[Sidecar]]) -> Made | None:
        """The edit of a key, or None: there is none, or its files cannot be read and it has to be computed again."""
        if not self._file(key).is_file():
            return None
        try:
            kept, about = tensor_files.load(self._beside(key))
            places = about["edit"]
            edit = Edit.load(self._file(key), sidecars, lambda name, tensor: _placed(tensor, places[name]))
            carry = {name: _placed(tensor, about["carry"][name]) for name, tensor in kept.items()}
            edit = replace(edit, carry=carry if about["carries"] else None)
            return Made(edit, requests, Cost(**about["cost"]), tuple(about["leftovers"]))
        except (EditSafetyError, OSError, LookupError, RuntimeError, TypeError, ValueError):
            return None

    def clear(self) -> None:
        """Drop all edits: the run has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.safetensors"

    def _beside(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.carry.safetensors"


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _overlaps(tensor: Tensor) -> bool:
    """Whether several entries share one place in memory (`expand`)."""
    return any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))


def _place(tensor: Tensor) -> dict[str, Any]:
    """What a file does not keep, and products round by: where a tensor is and how it lies in memory."""
    return {"device": str(tensor.device), "strides": list(tensor.stride())}


def _placed(tensor: Tensor, place: Mapping[str, Any]) -> Tensor:
    """The tensor where it was, lying as it did."""
    tensor = tensor.to(place["device"])
    if list(tensor.stride()) == place["strides"]:
        return tensor
    laid = torch.empty_strided(tensor.shape, place["strides"], dtype=tensor.dtype, device=tensor.device)
    return laid.copy_(tensor)
