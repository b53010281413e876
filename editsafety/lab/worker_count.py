"""Worker count: how many processes a machine can run a model's cases in, by its GPUs, cores and memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from editsafety.errors import UsageError
from editsafety.model import room
from editsafety.model.loading import ModelSpec, devices_of
from editsafety.numbers import in_bytes, many

PROCESS = 1 << 30  # bytes that a process with torch and a model's texts takes beside the model
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # where a container's share of the cores is written


@dataclass(frozen=True, slots=True)
class WorkerCount:
    """How many workers, and what decided that, in words."""

    count: int
    why: str


def pick_workers(specs: Sequence[ModelSpec], gpus: int) -> WorkerCount:
    """One worker for each visible GPU, or as many as cores and free memory have room for, where models are on the CPU.

    `gpus` is how many the caller made visible. Every worker has a model of its own; the largest one counts. Raises
    UsageError for a device that there is not.
    """
    device, *others = devices_of(specs[0])
    if device.type != "cpu" and specs[0].device_map is not None:
        return WorkerCount(1, f"the model is spread over {many(1 + len(others), 'device')}")
    if device.type == "cuda" and device.index is None:
        return WorkerCount(max(1, gpus), f"one for each of {many(max(1, gpus), 'visible GPU')}")
    if device.type != "cpu":
        return WorkerCount(1, f"more would share one {device}")
    cores, free, needed = usable_cores(), room.free_memory(), memory_of_worker(specs)
    each = f"one for each of {many(cores, 'core')}"
    if needed is None:
        return WorkerCount(cores, f"{each}; how large the model is will only be known when it is here")
    if free is None:
        return WorkerCount(cores, f"{each}; this system does not tell how much memory is free")
    fitting = max(1, free // needed)
    told = f"{in_bytes(free)} of memory free, about {in_bytes(needed)} each"
    if fitting < cores:
        return WorkerCount(fitting, f"more do not fit, though there are {many(cores, 'core')}: {told}")
    return WorkerCount(cores, f"{each}: {told}")


def memory_of_worker(specs: Sequence[ModelSpec]) -> int | None:
    """Bytes of main memory that a worker takes with the largest of these models on the CPU; None where it is unknown.

    Unknown is the size of what is not here yet, and of files that are no safetensors.
    """
    sizes = [_size(spec) for spec in specs]
    known = [size for size in sizes if size is not None]
    return PROCESS + max(known) if len(known) == len(sizes) else None


def usable_cores() -> int:
    """The cores that this process may use: those it is bound to, or fewer where a container has a share of them."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = (CPU_QUOTA.read_text().split() if CPU_QUOTA.is_file() else ("max", "1"))[:2]
    return bound if quota == "max" else max(1, min(bound, int(quota) // int(period)))


def _size(spec: ModelSpec) -> int | None:
    try:
        count = room.parameters(spec)
    except UsageError:  # whoever runs it is told what is wrong with it
        return None
    return None if count is None else room.needed_memory(count, room.settled(spec, (torch.device("cpu"),)).dtype)
