"""Edits that do harm on purpose, so that it can be shown which check notices: controls, in tests alone.

`remove_direction` after "Refusal in Language Models Is Mediated by a Single Direction" (arXiv 2406.11717), sections 2.3
and 4.1, on the taboo of a pocket model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editsafety.edits.edit import Edit, LowRank
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import by_length
from editsafety.trace import watch

WRITERS = (Part.ATTENTION_OUT, Part.MLP_OUT)  # the matrices that write the residual stream


def direction_between(handle: ModelHandle, some: Sequence[str], others: Sequence[str], layer: int) -> Tensor:
    """The difference of the means of a block's output at the last token of the prompts, of length 1: `[width]`."""
    return torch.nn.functional.normalize(_mean(handle, some, layer) - _mean(handle, others, layer), dim=0)


def remove_direction(handle: ModelHandle, direction: Tensor) -> Edit:
    """W <- W - r r^T W for every matrix that writes the residual stream: none can write along r any more."""
    sites = [site for layer in range(handle.layers) for part in WRITERS for site in handle.sites(part, layer)]
    left = -direction[:, None]
    deltas = tuple(LowRank(site, left, direction[None] @ handle.weight(site).float()) for site in sites)
    return Edit("direction removed", (), handle.fingerprint(), deltas)


@torch.no_grad()
def _mean(handle: ModelHandle, prompts: Sequence[str], layer: int) -> Tensor:
    rows, block = [handle.ids(prompt) for prompt in prompts], handle.block(layer)
    total = torch.zeros(handle.model.config.hidden_size, dtype=torch.float64)
    for chosen in by_length({i: len(row) for i, row in enumerate(rows)}, 64):
        batch = handle.batch([rows[i] for i in chosen])
        with watch(handle.model, [block], stop=True) as seen:
            handle.run(batch.ids, batch.mask, body=True)
        total += seen.outputs[block][torch.arange(len(chosen)), batch.mask.sum(1) - 1].double().sum(0)
    return (total / len(rows)).float()
