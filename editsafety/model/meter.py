"""Time and memory of a step, right on a GPU too (kernels run behind the caller's back until synchronised)."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Effort:
    """What a block took; filled in when it ends."""

    # Of the clock, with what was charged.
    seconds: float = 0.0
    # Above what was in use before; None where unknown.
    peak_bytes: int | None = None
    # Seconds of results that were there already: what they took when they were worked out.
    charged: float = 0.0
    # The peak up to now; None where unknown.
    peak_so_far: Callable[[], int | None] = lambda: None

    def charge(self, seconds: float, peak_bytes: int | None) -> None:
        """Count a result that was there already as if it had been worked out here."""
        self.charged += seconds
        self.peak_bytes = _larger(self.peak_bytes, peak_bytes)


@contextmanager
def metered(*devices: torch.device, memory: bool = False) -> Iterator[Effort]:
    """Measure the block. Memory on CUDA is the allocators' peaks, on a Linux CPU the rise of the resident set.

    Before the block glibc is asked to give back what earlier steps freed, else only the first of several equal steps
    would show its need. Small needs still hide in pages that stay: report the maximum over steps.
    """
    effort = Effort()
    before = _memory_before(devices) if memory else None
    if before is not None:
        effort.peak_so_far = lambda: _peak_above(before, devices)
    synchronise(*devices)
    start = time.perf_counter()
    try:
        yield effort
    finally:
        synchronise(*devices)
        effort.seconds = time.perf_counter() - start + effort.charged
        effort.peak_bytes = _larger(effort.peak_bytes, effort.peak_so_far())


def synchronise(*devices: torch.device) -> None:
    """Wait for the devices."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()


def _peak_above(before: int, devices: Sequence[torch.device]) -> int | None:
    cards = [device for device in devices if device.type == "cuda"]
    peak = sum(torch.cuda.max_memory_allocated(card) for card in cards) if cards else _status("VmHWM")
    return None if peak is None else max(0, peak - before)


def _larger(one: int | None, other: int | None) -> int | None:
    return max((known for known in (one, other) if known is not None), default=None)


def _memory_before(devices: Sequence[torch.device]) -> int | None:
    cards = [device for device in devices if device.type == "cuda"]
    for card in cards:
        torch.cuda.reset_peak_memory_stats(card)
    if cards:
        return sum(int(torch.cuda.memory_allocated(card)) for card in cards)
    if any(device.type != "cpu" for device in devices):
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
