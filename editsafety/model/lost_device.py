"""A device that answers nothing any more: told from what was raised."""

from __future__ import annotations

import torch


def lost_device(error: BaseException) -> BaseException | None:
    """What a GPU said after which every call fails in this process (a device-side assert, an illegal access), or None.

    It may be behind what came of it: the model cannot be put back either then.
    """
    seen: BaseException | None = error
    while seen is not None:
        said = str(seen) if isinstance(seen, RuntimeError) and not isinstance(seen, torch.OutOfMemoryError) else ""
        if any(name in said for name in ("CUDA error:", "HIP error:")) and "out of memory" not in said:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
