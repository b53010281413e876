"""The forward passes that measures use: log-probabilities and greedy continuations, batched and right-padded.

Everything is computed in float32 natural logarithms, whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editsafety.errors import ModelError
from editsafety.models import Batch, ModelHandle


@torch.no_grad()
def token_nll(handle: ModelHandle, rows: Sequence[Sequence[int]], *, batch_size: int = 64) -> list[Tensor]:
    """Negative log-likelihood of tokens 2..n of every row, on the CPU: one float32 `[n - 1]` per row.

    Rows of similar length share a batch; the result is in the order of `rows`. A row of one token or none
    gives an empty tensor.
    """
    order = sorted((i for i in range(len(rows)) if len(rows[i]) > 1), key=lambda i: (len(rows[i]), i))
    found: dict[int, Tensor] = {i: torch.empty(0) for i in range(len(rows))}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = handle.batch([rows[i] for i in chosen])
        nll = _shifted_nll(handle.logits(batch), batch).cpu()
        for i, values in zip(chosen, nll, strict=True):
            found[i] = values[: len(rows[i]) - 1].clone()
    return [found[i] for i in range(len(rows))]


@torch.no_grad()
def target_nll(
    handle: ModelHandle, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, batch_size: int = 64
) -> list[Tensor]:
    """Negative log-likelihood of each target's tokens behind its prompt, teacher-forced: one `[len(target)]` per row.

    Raises ModelError for an empty prompt: nothing predicts the first token of its target.
    """
    if not all(prompts):
        raise ModelError(f"a prompt of no tokens: {handle.name} has nothing to predict its target from.")
    rows = [[*prompt, *target] for prompt, target in zip(prompts, targets, strict=True)]
    scored = token_nll(handle, rows, batch_size=batch_size)
    return [values[len(values) - len(target) :] for values, target in zip(scored, targets, strict=True)]


@torch.no_grad()
def continuations(
    handle: ModelHandle, prompts: Sequence[Sequence[int]], lengths: Sequence[int], *, batch_size: int = 64
) -> list[list[int]]:
    """Greedy free-running continuations, `lengths[i]` tokens behind prompt i. Ties and NaN go to the lowest id."""
    rows = [list(prompt) for prompt in prompts]
    wanted = [len(row) + n for row, n in zip(rows, lengths, strict=True)]
    while True:
        open_rows = [i for i in range(len(rows)) if len(rows[i]) < wanted[i]]
        if not open_rows:
            return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]
        open_rows.sort(key=lambda i: (len(rows[i]), i))
        for start in range(0, len(open_rows), batch_size):
            chosen = open_rows[start : start + batch_size]
            best = torch.nan_to_num(next_logits(handle, [rows[i] for i in chosen]), nan=-torch.inf).argmax(-1)
            for i, token in zip(chosen, best.tolist(), strict=True):
                rows[i].append(int(token))


@torch.no_grad()
def next_logits(handle: ModelHandle, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits of the token behind every row, `[rows, vocab]`."""
    batch = handle.batch(rows)
    logits = handle.logits(batch)
    last = batch.mask.sum(1) - 1
    return logits[torch.arange(len(rows), device=logits.device), last]


def _shifted_nll(logits: Tensor, batch: Batch) -> Tensor:
    """`[batch, seq - 1]`: position t holds the negative log-probability of token t + 1."""
    scores = torch.log_softmax(logits[:, :-1], -1)
    return -scores.gather(-1, batch.ids[:, 1:].unsqueeze(-1)).squeeze(-1)
