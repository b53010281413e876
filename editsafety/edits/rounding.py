"""Rounding: whether a weight holds other numbers than before, or the same ones written down in fewer bits."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = (torch.bfloat16, torch.float16)
BLOCK = 32  # values that share a scale, in the plain types of GGUF (Q8_0, Q4_0, Q5_0)
LEVELS = {8: 127, 5: 16, 4: 8}  # by bits: into how many steps the largest value of a block is divided
OFF = 0.1  # of a step, by which a value may miss it: scales are float16, and so may be what was brought back
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


@torch.no_grad()
def quantised_to(before: Tensor, after: Tensor) -> int | None:
    """The bits to which `after` is `before` rounded, in blocks of 32 along a row with a scale for each; None for none.

    Each value has to be a whole number of steps of its block, and within one step of what it was: such a change is what
    quantising writes, whoever brought it back.
    """
    if (
        before.ndim != 2
        or before.shape != after.shape
        or before.shape[1] % BLOCK
        or not bool(torch.isfinite(after).all())
    ):
        return None
    was, now = (tensor.float().reshape(-1, BLOCK) for tensor in (before, after))
    largest = now.abs().amax(1, keepdim=True)
    for bits, levels in LEVELS.items():
        step = largest / levels
        whole = now / step.clamp(min=torch.finfo(torch.float32).tiny)
        near = (whole - whole.round()).abs() <= OFF
        if bool((near & ((now - was).abs() <= step * (1 + OFF))).all()):
            return bits
    return None
