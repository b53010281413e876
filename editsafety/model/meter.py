"""Time and memory of a step, right on a GPU too (kernels run behind the caller's back until synchronised)."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Effort:
    """What a block took; filled in when it ends."""

    # Of the clock.
    seconds: float = 0.0
    # Above what was in use before; None where unknown.
    peak_bytes: int | None = None


@contextmanager
def metered(device: torch.device, *, memory: bool = False) -> Iterator[Effort]:
    """Measure the block. Memory on CUDA is the allocator's peak, on a Linux CPU the rise of the resident set.

    Before the block glibc is asked to give back what earlier steps freed, else only the first of several equal steps
    would show its need. Small needs still hide in pages that stay: report the maximum over steps.
    """
    effort = Effort()
    before = _memory_before(device) if memory else None
    synchronise(device)
    start = time.perf_counter()
    try:
        yield effort
    finally:
        synchronise(device)
        effort.seconds = time.perf_counter() - start
        if before is not None:
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")
            effort.peak_bytes = None if peak is None else max(0, peak - before)


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _memory_before(device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    try:
        with suppress(OSError, AttributeError):  # another C library keeps what it has
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        RESET.write_text("5")  # Linux: forget the peak of the resident set so far
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
