"""Rounding: whether a weight holds other numbers than before, or the same ones written down in fewer bits."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = (torch.bfloat16, torch.float16)


@torch.no_grad()
def is_only_rounded(before: Tensor, after: Tensor) -> bool:
    """Whether nothing was written: `after` is `before`, or what a narrower dtype makes of it.

    Numbers are compared, so a zero may change its sign. Both have the same shape and dtype.
    """
    if torch.equal(before, after):
        return True
    return any(
        narrow.itemsize < before.dtype.itemsize and torch.equal(before.to(narrow).to(before.dtype), after)
        for narrow in NARROW
    )
