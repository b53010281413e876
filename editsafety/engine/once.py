"""Once: what is asked of the unedited model a second time is not worked out a second time.

Rome, C-ROME, R-ROME and p-ROME seek the same v*, MEMIT, EMMET and AlphaEdit another one: most of what such an edit
costs. It is kept by everything that it can depend on: every bit of the model (`edits/testimony`), the question, the
code, the settings that torch computes by. So it is the same to the bit, and nobody has to know who will ask.

Nothing is kept, and nothing is taken, of a model that carries an edit or anything else that was not there when the
session around it was opened; without a session, since nobody knows then; and with a plain engine.

What is kept is in memory, and in the run's folder of edits for other processes and resumed runs while the engine has
one. A file that is damaged is made anew. Whoever takes a result is charged the time and memory that it took when it was
worked out: what an edit costs does not depend on which editor ran first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editsafety import __version__, tensor_files
from editsafety.edits.surroundings import arithmetic
from editsafety.errors import EditSafetyError
from editsafety.model.handle import ModelHandle
from editsafety.model.meter import metered

MOST = 64 << 20  # bytes in memory; beyond, what was kept first goes first
PACKAGE = Path(__file__).parent.parent
ROOMS = ("editing", "engine")  # whose code results come from

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Remembered:
    """What was worked out, on the CPU, and what that took."""

    tensors: Tensors
    seconds: float
    # The peak of the edit it was worked out for, up to then; None where unknown.
    peak_bytes: int | None

    @classmethod
    def of(cls, tensors: Tensors, seconds: float, peak_bytes: int | None) -> Remembered:
        """A copy: whoever asked may do to his tensors what he likes."""
        return cls({name: _copy(tensor, "cpu") for name, tensor in tensors.items()}, seconds, peak_bytes)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def save(self, path: Path) -> None:
        """Write it, for other processes."""
        tensor_files.save(path, self.tensors, {"seconds": self.seconds, "peak_bytes": self.peak_bytes})

    @classmethod
    def load(cls, path: Path) -> Remembered | None:
        """Read it; None where there is none, or its file is not what was written."""
        if not path.is_file():
            return None
        try:
            tensors, about = tensor_files.load(path)
            peak = about["peak_bytes"]
            return cls(tensors, float(about["seconds"]), None if peak is None else int(peak))
        except (EditSafetyError, LookupError, TypeError, ValueError):
            return None


def once(handle: ModelHandle, asked: Mapping[str, Any], work: Callable[[], Tensors]) -> Tensors:
    """What `work` gives, which must follow from the model as it is and from `asked` (JSON values) alone.

    The tensors are the caller's own, on the model's device.
    """
    key = _key(handle, asked)
    if key is None:
        return work()
    known = _find(handle, key)
    if known is None:
        with metered(*handle.devices) as reading:
            tensors = work()
        _keep(handle, key, Remembered.of(tensors, reading.seconds, _peak(handle)))
        return tensors
    if handle.engine.effort is not None:
        handle.engine.effort.charge(known.seconds, known.peak_bytes)
    return {name: _copy(tensor, handle.device) for name, tensor in known.tensors.items()}


def _key(handle: ModelHandle, asked: Mapping[str, Any]) -> str | None:
    """sha256 of everything that a result can depend on; None where nothing may be kept."""
    witness = None if handle.engine.plain else handle.engine.witness
    model = None if witness is None else witness.unedited()
    if model is None:
        return None
    config = handle.model.config
    body = {
        "asked": asked,
        "model": model,
        "config": [type(handle.model).__qualname__, config.to_dict(), config._attn_implementation],
        "code": _code(),
        "torch": [torch.__version__, " + ".join(_processor(device) for device in handle.devices), arithmetic()],
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


def _processor(device: torch.device) -> str:
    """What the kernels are chosen by."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device} {torch.backends.cpu.get_cpu_capability()}"


@cache
def _code() -> str:
    """sha256 of the code that results come from."""
    import transformers

    code = hashlib.sha256(f"{__version__} {transformers.__version__}".encode())
    for path in sorted(path for room in ROOMS for path in (PACKAGE / room).glob("*.py")):
        code.update(path.name.encode() + path.read_bytes())
    return code.hexdigest()


def _find(handle: ModelHandle, key: str) -> Remembered | None:
    found = handle.engine.kept.get((Remembered, key))
    if isinstance(found, Remembered) or handle.engine.folder is None:
        return found
    return Remembered.load(_file(handle.engine.folder, key))


def _keep(handle: ModelHandle, key: str, result: Remembered) -> None:
    engine = handle.engine
    engine.kept[Remembered, key] = result
    mine = {name: one for name, one in engine.kept.items() if isinstance(one, Remembered)}
    size = sum(one.size for one in mine.values())
    for name, one in mine.items():
        if size <= MOST:
            break
        size -= one.size
        del engine.kept[name]
    if engine.folder is not None:
        try:
            result.save(_file(engine.folder, key))
        except OSError:
            return  # a full disk is said by the store of the run, which writes right after; the edit is none the worse


def _file(folder: Path, key: str) -> Path:
    return folder / f"once-{key[:32]}.safetensors"


def _peak(handle: ModelHandle) -> int | None:
    return None if handle.engine.effort is None else handle.engine.effort.peak_so_far()


def _copy(tensor: Tensor, device: torch.device | str) -> Tensor:
    return tensor.detach().to(device, copy=True)
