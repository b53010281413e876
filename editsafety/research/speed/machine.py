"""What a machine can do at most, to say what share of it a computation reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from editsafety.model.meter import synchronise

SIZE = 1024  # of the square matrices whose product is timed; larger ones are no faster on a CPU
TIMES = 5


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second in a product of large matrices, the best of some; CPU time on a CPU."""
    size = SIZE if device.type == "cpu" else 8 * SIZE
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = []
    for _ in range(TIMES + 1):  # the first one wakes the machine up
        synchronise(device)
        start = clock()
        one @ one
        synchronise(device)
        seconds.append(clock() - start)
    return 2.0 * size**3 / min(seconds[1:])


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products of a computation, which is run once more for it."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
