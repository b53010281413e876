"""Rounding: whether a weight holds other numbers than before, or the same ones written down in fewer bits."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = (torch.bfloat16, torch.float16)
CUT_OFF = -(2**16)  # the bits of a float32 that a bfloat16 has, as an int32


@torch.no_grad()
def is_only_rounded(before: Tensor, after: Tensor) -> bool:
    """Whether nothing was written: `after` is `before`, or what a narrower dtype makes of it.

    Numbers are compared, so a zero may change its sign. Both have the same shape and dtype.
    """
    if torch.equal(before, after):
        return True
    return rounded_to(before, after) is not None


@torch.no_grad()
def rounded_to(before: Tensor, after: Tensor) -> torch.dtype | None:
    """The narrower dtype of which `after` is what it makes of `before`, to the nearest or cut off; None for none.

    What went through float16 into bfloat16 was rounded twice, and is no edit either.
    """
    for narrow in NARROW:
        if narrow.itemsize < before.dtype.itemsize:
            ways = [before.to(narrow), before.to(torch.float16).to(narrow)]
            if narrow is torch.bfloat16 and before.dtype is torch.float32:
                ways.append((before.contiguous().view(torch.int32) & CUT_OFF).view(torch.float32).to(narrow))
            if any(torch.equal(way.to(before.dtype), after) for way in ways):
                return narrow
    return None
