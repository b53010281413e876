"""What a projection receives (the key) and returns at the subject's last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editsafety.editing.subject import Located
from editsafety.model import trace
from editsafety.model.handle import ModelHandle

ROWS = 256  # prompts that are run at once


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
        handle.run(batch.ids, batch.mask)
    count, width = batch.ids.shape
    rows = torch.arange(count)
    places = torch.tensor([prompt.subject for prompt in prompts])
    inputs, outputs = by_token(seen.inputs[module], count, width), by_token(seen.outputs[module], count, width)
    return AtSubject(inputs[rows, places].float(), outputs[rows, places].float())


def average(
    handle: ModelHandle, module: str, prompts: Sequence[Sequence[Located]], weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted mean of each request's keys, and the key of its first prompt alone; both `[d_in, n]` float32.

    `prompts` holds a row per request, `weights` one number per prompt of a row. Many rows are run in several batches.
    """
    width = len(weights)
    size = max(1, ROWS // width)
    means, firsts = [], []
    for start in range(0, len(prompts), size):
        chunk = prompts[start : start + size]
        inputs = at_subject(handle, module, [prompt for row in chunk for prompt in row]).inputs
        inputs = inputs.reshape(len(chunk), width, -1)
        means.append(torch.einsum("ntm,t->nm", inputs, weights.to(inputs)))
        firsts.append(inputs[:, 0])
    return torch.cat(means).T, torch.cat(firsts).T


def outputs(handle: ModelHandle, module: str, prompts: Sequence[Located]) -> Tensor:
    """What `module` returns at the subject's last token of every prompt, `[d_out, n]` float32, in several batches."""
    chunks = [prompts[start : start + ROWS] for start in range(0, len(prompts), ROWS)]
    return torch.cat([at_subject(handle, module, chunk).outputs for chunk in chunks]).T


def by_token(tensor: Tensor, count: int, width: int) -> Tensor:
    """`[batch, seq, d]`, also for families that flatten batch and sequence inside their MLP (opt)."""
    return tensor.reshape(count, width, tensor.shape[-1])
