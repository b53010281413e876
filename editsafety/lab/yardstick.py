"""Yardstick: plain forward passes of the model, timed between edits, so that what edits cost can be told in them."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

import torch

from editsafety.model.handle import ModelHandle
from editsafety.model.meter import metered

ROWS, WIDTH = 8, 32  # tokens of one pass; the same for every model and every run
MOST = 200  # readings that are kept of a block
ENOUGH = 32  # of a larger block no more are taken, spread over all of it: they cost as much as a third of measuring


def is_due(edits: int, of: int) -> bool:
    """Whether there is to be a reading behind so many edits of a block of that size.

    Before every edit of a small block; every second, third ... edit where there would be twice, three times as many as
    are enough. Evenly, since what the machine does beside it may change from minute to minute.
    """
    return edits % max(1, of // ENOUGH) == 0


def reading(handle: ModelHandle) -> float | None:
    """Seconds of a forward pass, behind one that is not timed; None where the model cannot do that now."""
    words = int(handle.model.get_input_embeddings().weight.shape[0])
    width = min(WIDTH, handle.context)
    try:
        batch = handle.batch(
            [[(7919 * (row * width + place)) % words for place in range(width)] for row in range(ROWS)]
        )
        with torch.no_grad():
            _once(handle, batch.ids, batch.mask)
            seconds = _once(handle, batch.ids, batch.mask)
    except RuntimeError:  # memory that ran out, a GPU that is gone: whoever edits it next finds out, and says so
        return None
    return seconds if seconds > 0 else None


def machine(handle: ModelHandle) -> str:
    """What kind of machine it is: its GPU, or its processor and the threads in use."""
    if handle.device.type == "cuda":
        return torch.cuda.get_device_name(handle.device)
    if handle.device.type != "cpu":
        return f"{handle.device.type} of {platform.machine()}"
    return f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def _once(handle: ModelHandle, ids: torch.Tensor, mask: torch.Tensor) -> float:
    with metered(*handle.devices) as reading:
        handle.run(ids, mask)
    return reading.seconds


def _processor() -> str:
    with suppress(OSError):
        for row in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = row.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
