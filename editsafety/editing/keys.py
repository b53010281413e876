"""What a projection receives (the key) and returns at the subject's last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety import trace
from editsafety.editing.subject import Located
from editsafety.models import ModelHandle


@dataclass(frozen=True, eq=False)
class AtSubject:
    """Input `[n, d_in]` and output `[n, d_out]` of one module, a row per prompt; float32."""

    inputs: Tensor
    outputs: Tensor


@torch.no_grad()
def at_subject(handle: ModelHandle, module: str, prompts: Sequence[Located]) -> AtSubject:
    """Input and output of `module` at the subject's last token of every prompt, in one right-padded batch.

    The forward pass ends behind the module: later layers are not run. For a decoder block the output is the residual
    stream behind it.
    """
    batch = handle.batch([prompt.ids for prompt in prompts])
    with trace.watch(handle.model, [module], stop=True) as seen:
        handle.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    count, width = batch.ids.shape
    rows = torch.arange(count)
    places = torch.tensor([prompt.subject for prompt in prompts])
    inputs, outputs = by_token(seen.inputs[module], count, width), by_token(seen.outputs[module], count, width)
    return AtSubject(inputs[rows, places].float(), outputs[rows, places].float())


def by_token(tensor: Tensor, count: int, width: int) -> Tensor:
    """`[batch, seq, d]`, also for families that flatten batch and sequence inside their MLP (opt)."""
    return tensor.reshape(count, width, tensor.shape[-1])
