"""Buckets: which requests are run together: passes become as large as a machine likes, and hardly anything is padded.

Rows are padded to the widest of their batch: without buckets up to half of a batch is padding, and hardly any time is
saved (measured: 1.08 times as fast instead of 1.4, with ROME's 22 rows a request).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editsafety.model.handle import ModelHandle

# On a CPU a product of 512 rows has its full rate; the other half is for the padding, which products leave out
# (`engine/lean`), and larger batches leave the caches (measured). A GPU likes more; there the limit is what a gradient
# keeps of every token, for which an eighth of the card is meant (counted, not measured).
CPU_TOKENS = 1024
SHARE = 8
KEPT = 34  # numbers that are kept of a token, per layer and unit of width
PADDING = 0.4  # the largest share of padding


def by_width(widths: Sequence[int], rows: int, most: int) -> list[list[int]]:
    """Indices of requests that are run together, the narrowest first; each has so many rows, of its own width.

    Of not more than `most` tokens (rows x the largest width), unless a single request has more.
    """
    found: list[list[int]] = []
    for place in sorted(range(len(widths)), key=lambda one: widths[one]):
        if found and _fit([widths[one] for one in (*found[-1], place)], rows, most):
            found[-1].append(place)
        else:
            found.append([place])
    return found


def most_tokens(handle: ModelHandle) -> int:
    """How many tokens, padding included, are run together: the same in every run on one kind of machine."""
    if handle.device.type != "cuda":
        return CPU_TOKENS
    width = int(handle.model.config.get_text_config().hidden_size)
    kept: int = KEPT * width * handle.layers * handle.model.dtype.itemsize
    card = torch.cuda.get_device_properties(handle.device)
    return int(card.total_memory) // (SHARE * kept)


def _fit(widths: Sequence[int], rows: int, most: int) -> bool:
    whole = len(widths) * max(widths)
    return rows * whole <= most and whole - sum(widths) <= PADDING * whole
