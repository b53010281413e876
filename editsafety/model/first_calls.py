"""First calls: what a process has to do once, so that the first numbers it computes are as exact as all later ones.

Intel's vector library, which torch's CPU builds go by for tanh, exp and their like, picks the kernel of a function when
that is called for the first time. Where several threads do so at once, which a busy machine makes likely, one of them
can be given a kernel of low accuracy for its share of that one call (pytorch issue 188792: up to 4,000 units in the
last place). The model that a process asks first is the unedited one, which everything else is compared with.
"""

from __future__ import annotations

import torch

# Those that torch hands to that library, and those that it did in other releases.
FUNCTIONS = (
    "acos",
    "asin",
    "atan",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
)


def settle() -> None:
    """Call each function on one number, which one thread does. Takes a few milliseconds, once; changes no setting."""
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(number)
