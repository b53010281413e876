"""TIES-merging: several differences from one matrix become one, where they disagree the heavier sign decides.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", arXiv 2306.01708, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def merge(differences: Tensor, density: float) -> Tensor:
    """One difference `[d_out, d_in]` from `[n, d_out, d_in]`, all of equal weight; same dtype, computed in float32.

    Of each the share `density` of entries with the largest size is kept. Entry by entry the sign whose sum is larger
    wins (plus in a tie), and the mean of the kept entries with that sign is taken; 0 where there is none.
    """
    flat = differences.float().flatten(1)
    largest = flat.abs().topk(int(density * flat.shape[1]), dim=1).indices
    kept = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest))
    winner = torch.where(kept.sum(0) >= 0, 1.0, -1.0)
    agrees = kept.sign() == winner
    mean = (kept * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    return mean.reshape(differences.shape[1:]).to(differences.dtype)
