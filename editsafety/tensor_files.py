"""Tensors on disk that cannot be wrong unnoticed: safetensors plus a sha256 of every tensor and of the header.

safetensors itself refuses truncated files and bad headers but loads a flipped data byte silently; pickle is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety.errors import EditSafetyError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1


def digest(tensor: Tensor) -> str:
    """sha256 over dtype, shape and bytes of one tensor, wherever it lives."""
    import torch

    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    head = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode()
    print_ = hashlib.sha256(head)
    print_.update(flat.view(torch.uint8).numpy().data)
    return print_.hexdigest()


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON value `about` to `path`, whole or not at all."""
    from safetensors.torch import save as to_bytes

    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        flat = tensor.detach().to("cpu").contiguous()
        place = flat.untyped_storage().data_ptr()
        kept[name] = flat.clone() if place in seen else flat  # safetensors refuses tensors that share memory
        seen.add(place)
    body = {"format": FORMAT, "about": dict(about), "sha256": {name: digest(t) for name, t in sorted(kept.items())}}
    text = json.dumps(body, sort_keys=True, allow_nan=False)
    metadata = {"editsafety": text, "editsafety_sha256": hashlib.sha256(text.encode()).hexdigest()}
    write_atomically(path, _settled(to_bytes(kept, metadata)))


def _settled(data: bytes) -> bytes:
    """The same file with a sorted header: safetensors writes metadata in any order, so equal edits as unequal bytes."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(data)[8 + size :]))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote.

    Raises EditSafetyError when the file is truncated, altered, of another format, or not ours at all.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise EditSafetyError(f"{path}: there is no such file.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise EditSafetyError(f"{path}: not a whole safetensors file ({error}). Make or fetch it again.") from error
    text = metadata.get("editsafety")
    if text is None:
        raise EditSafetyError(f"{path}: a safetensors file, but not one that editsafety wrote (no header of ours).")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("editsafety_sha256"):
        raise EditSafetyError(f"{path}: the header was altered after it was written. Make or fetch the file again.")
    body = json.loads(text)
    if body["format"] != FORMAT:
        raise EditSafetyError(f"{path}: format {body['format']}; this version of editsafety reads format {FORMAT}.")
    if set(body["sha256"]) != set(tensors):
        raise EditSafetyError(f"{path}: holds tensors {sorted(tensors)}, its header promises {sorted(body['sha256'])}.")
    for name, tensor in tensors.items():
        if digest(tensor) != body["sha256"][name]:
            raise EditSafetyError(f"{path}: tensor {name!r} was altered after it was written (sha256 differs).")
    return tensors, body["about"]


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: a full disk or a kill leaves the old file, never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
