"""Room: how much memory a model takes, how much there is, and in which dtype it fits. Nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from editsafety.errors import EditSafetyError, UsageError
from editsafety.model.loading import ModelSpec, model_folder, size_of_random
from editsafety.numbers import in_bytes

GIB = 1 << 30
COPIED = 4 * GIB  # bytes; a larger model is loaded again when it has to be brought back
AUTO, WIDE, NARROW = "auto", "float32", "bfloat16"
SHARE = 0.9  # of a device's memory: the rest is taken by others and by what is computed


def settled(spec: ModelSpec, devices: Sequence[torch.device]) -> ModelSpec:
    """The same with a dtype in place of "auto": float32, or bfloat16 where float32 does not fit.

    It goes by all of the devices' memory and not by what is free, so that it is the same in every worker and at any
    time. Where the size of a model or of the memory is not known, it is float32.
    """
    if spec.dtype != AUTO:
        return spec
    count, there = _known_parameters(spec), whole_memory(*devices)
    fits = count is None or there is None or needed_memory(count, WIDE) <= SHARE * there
    return replace(spec, dtype=WIDE if fits else NARROW)


def announcement(asked: ModelSpec, taken: ModelSpec, devices: Sequence[torch.device]) -> str | None:
    """What is said where "auto" was not float32; None where there is nothing to say."""
    if asked.dtype != AUTO or taken.dtype == WIDE:
        return None
    count, there = _known_parameters(asked), whole_memory(*devices)
    assert count is not None
    assert there is not None
    return (
        f"{taken.slug}: as {taken.dtype}, since {WIDE} takes about {in_bytes(needed_memory(count, WIDE))} and "
        f"{named(devices)} has {in_bytes(there)}; --dtype {WIDE} insists"
    )


def parameters(spec: ModelSpec) -> int | None:
    """How many numbers a model's files hold; None where they are not here (a hub id, a function).

    Raises UsageError for a name that there is not, and for files that cannot be read.
    """
    if ".py:" in spec.name:
        return None
    if spec.name.startswith("random:"):
        return size_of_random(spec.name)
    folder = folder_of(spec)
    if folder is None:
        return None
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UsageError(f"{folder}: has no *.safetensors, so nothing is known of its size. Run it to see.")
    return sum(_numbers_in(path) for path in files)


def folder_of(spec: ModelSpec) -> Path | None:
    """Where a model's files are: shipped, a local folder, or the hub's cache; None where there are none."""
    if (shipped := model_folder(spec.name)) is not None:
        return shipped
    if (folder := Path(spec.name)).is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(spec.name, "config.json", revision=spec.revision)
    except ValueError:  # no name that a hub could have: loading it says so
        return None
    return Path(found).parent if isinstance(found, str) else None


def whole_memory(*devices: torch.device) -> int | None:
    """Bytes that devices have together, whoever uses them; None where the system does not tell."""
    cards = [device for device in devices if device.type == "cuda"]
    if cards:
        return sum(int(torch.cuda.get_device_properties(card).total_memory) for card in cards)
    return _of_system("MemTotal")


def free_memory(*devices: torch.device) -> int | None:
    """Bytes that can be had now: of these devices together, or of main memory without swapping, where none is a card.

    None where the system does not tell.
    """
    cards = [device for device in devices if device.type == "cuda"]
    if cards:
        return sum(int(torch.cuda.mem_get_info(card)[0]) for card in cards)
    return _of_system("MemAvailable")


def has_room(size: int) -> bool:
    """Whether main memory holds so many bytes more and as many again for what is computed; yes where nobody knows."""
    free = free_memory()
    return free is None or 2 * size <= free


def named(devices: Sequence[torch.device]) -> str:
    """Their kind, and how many there are where that is more than one: "cuda x 2"."""
    kinds = ", ".join(dict.fromkeys(device.type for device in devices))
    return kinds if len(devices) == 1 else f"{kinds} x {len(devices)}"


def needed_memory(count: int, dtype: str) -> int:
    """Bytes for the weights, the copy from which they are brought back, and as much again for one edit's gradients.

    A larger copy than `COPIED` is not kept: the model is loaded anew instead.
    """
    weights = count * torch.finfo(getattr(torch, dtype)).bits // 8
    return 2 * weights + (weights if weights <= COPIED else 0)


def place_for(device: torch.device, taken: int, needed: int) -> torch.device:
    """Where so many bytes go that are kept for later, beside what is taken: a GPU, or the CPU if it would get short.

    A quarter of a GPU is left to what is computed on it. It goes by all of its memory, so it is the same at any time.
    """
    there = whole_memory(device) if device.type == "cuda" else None
    return torch.device("cpu") if there is not None and taken + needed > 0.75 * there else device


def _known_parameters(spec: ModelSpec) -> int | None:
    """As `parameters`; None as well for files whose size cannot be told beforehand: loading them says what is wrong."""
    try:
        return parameters(spec)
    except EditSafetyError:
        return None


def _of_system(field: str) -> int | None:
    told = Path("/proc/meminfo")
    if not told.is_file():
        return None
    fields = dict(line.split(":", 1) for line in told.read_text().splitlines() if ":" in line)
    return int(fields[field].split()[0]) * 1024 if field in fields else None


def _numbers_in(path: Path) -> int:
    try:
        with safe_open(path, "pt") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: is no file of weights ({error}). Fetch the model again.") from error
