"""Tensors on disk that cannot be wrong unnoticed: safetensors plus a sha256 of every tensor and of the header.

safetensors itself refuses truncated files and bad headers but loads a flipped data byte silently; pickle is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety.errors import EditSafetyError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
HEADER = 1 << 26  # bytes; a header has about 300 per tensor
BUFFER = 1 << 20  # bytes that are written at once, where they come in parts


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
    """Read what `save` wrote. The tensors own their memory: what becomes of the file afterwards is nothing to them.

    Raises EditSafetyError when the file is truncated, altered, of another format, or not ours at all.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    data = _read(path)
    metadata = _metadata(path, data)
    try:
        tensors = from_bytes(data)
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise EditSafetyError(f"{path}: not a whole safetensors file ({error}). Make or fetch it again.") from error
    text = metadata.get("editsafety")
    if not isinstance(text, str):
        raise EditSafetyError(f"{path}: a safetensors file, but not one that editsafety wrote (no header of ours).")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("editsafety_sha256"):
        raise EditSafetyError(f"{path}: the header was altered after it was written. Make or fetch the file again.")
    about, prints = _body(path, text)
    if set(prints) != set(tensors):
        raise EditSafetyError(f"{path}: holds tensors {sorted(tensors)}, its header promises {sorted(prints)}.")
    for name, tensor in tensors.items():
        if digest(tensor) != prints[name]:
            raise EditSafetyError(f"{path}: tensor {name!r} was altered after it was written (sha256 differs).")
    return tensors, about


def _read(path: Path) -> bytes:
    """Every byte, in memory of our own: a mapped file that is cut short later takes the process with it."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise EditSafetyError(f"{path}: {what}; expected a .safetensors file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise EditSafetyError(f"{path}: cannot be read ({error.strerror}).") from error


def _metadata(path: Path, data: bytes) -> dict[str, Any]:
    """The part of the header that is not about tensors."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, HEADER):
        raise EditSafetyError(f"{path}: not a whole safetensors file (its header is cut short or too large).")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.get("__metadata__", {})
        return dict(metadata)
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise EditSafetyError(f"{path}: not a whole safetensors file (its header is no JSON object).") from error


def _body(path: Path, text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What `save` was given to write beside the tensors, and the sha256 of each tensor."""
    try:
        body = json.loads(text, parse_constant=_refuse_constant)
    except (RecursionError, ValueError) as error:
        raise EditSafetyError(f"{path}: its header cannot be read ({error}). Make or fetch the file again.") from error
    body = body if isinstance(body, dict) else {}
    if body.get("format") != FORMAT:
        found = body.get("format")
        raise EditSafetyError(f"{path}: format {found!r}; this version of editsafety reads format {FORMAT}.")
    about, prints = body.get("about"), body.get("sha256")
    for name, value in (("about", about), ("sha256", prints)):
        if not isinstance(value, dict):
            raise EditSafetyError(f"{path}: {name} in its header is {value!r:.60}, expected an object of names.")
    assert isinstance(about, dict)
    assert isinstance(prints, dict)
    return about, prints


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: a full disk or a kill leaves the old file, never half a file."""
    write_lines_atomically(path, (data,))


def write_lines_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """The same of data that comes in parts, of which one at a time is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb", buffering=BUFFER) as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
