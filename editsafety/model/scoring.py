"""The forward passes that measures use: log-probabilities and greedy continuations, batched and right-padded.

Everything is in natural logarithms of float32 probabilities, whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from editsafety.model.handle import Batch, ModelHandle

TOKENS_PER_ROW = 64  # a row of a full batch may be so long before the batch takes fewer rows
SPREAD = 1.25  # longest to shortest row of a batch; less padding in more batches takes as long (measured: 1.0 to 1.5)
# Logits whose probabilities are summed at once: on a CPU what stays in its cache (half of the time for 49,152 tokens).
AT_ONCE = {"cpu": 1 << 19}
AT_ONCE_ELSEWHERE = 1 << 26


# Is shown the logits of a batch at the places that hold a token which another one follows: how many there are, and what
# gives the float32 logits `[chosen, vocab]` of some of them, by their numbers.
Look = Callable[[int, Callable[[Tensor], Tensor]], None]


@torch.no_grad()
def batch_nll(handle: ModelHandle, batch: Batch, look: Look | None = None) -> Tensor:
    """On the CPU, float32 `[batch, seq - 1]`: position t holds the negative log-likelihood of token t + 1."""
    logits = handle.logits(batch)
    if look is not None:
        rows, places = followed(batch)
        look(len(rows), lambda chosen: logits[rows[chosen], places[chosen]])
    return -log_likelihoods(logits[:, :-1], batch.ids[:, 1:]).float()


def followed(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows and places at which a token stands that another one follows, row after row."""
    rows, places = batch.mask[:, 1:].nonzero(as_tuple=True)
    return rows, places


@torch.no_grad()
def token_nll(
    handle: ModelHandle,
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int = 64,
    score: Callable[[ModelHandle, Batch], Tensor] = batch_nll,
) -> list[Tensor]:
    """Negative log-likelihood of tokens 2..n of every row, on the CPU: one float32 `[n - 1]` per row.

    Rows of similar length share a batch; the result is in the order of `rows`. A row of one token or none
    gives an empty tensor. `score` gives what `batch_nll` gives.
    """
    by_row: dict[int, Tensor] = {i: torch.empty(0) for i in range(len(rows))}
    for chosen in by_length({i: len(row) for i, row in enumerate(rows) if len(row) > 1}, batch_size):
        batch = handle.batch([rows[i] for i in chosen])
        for i, values in zip(chosen, score(handle, batch), strict=True):
            by_row[i] = values[: len(rows[i]) - 1].clone()
    return [by_row[i] for i in range(len(rows))]


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
        for chosen in by_length({i: len(rows[i]) for i in open_rows}, batch_size):
            best = torch.nan_to_num(next_logits(handle, [rows[i] for i in chosen]), nan=-torch.inf).argmax(-1)
            for i, token in zip(chosen, best.tolist(), strict=True):
                rows[i].append(int(token))


def by_length(lengths: Mapping[int, int], batch_size: int) -> Iterator[list[int]]:
    """Deal rows (index: tokens) into batches of similar length: little padding, and never more than it may cost.

    A batch has at most `batch_size` rows, at most `batch_size` x 64 tokens with its padding, and no row that is more
    than a quarter (and 4 tokens) longer than its shortest. Depends on lengths and indices alone.
    """
    batch: list[int] = []
    for i in sorted(lengths, key=lambda i: (lengths[i], i)):
        width = lengths[i]
        full = len(batch) == batch_size or width * (len(batch) + 1) > batch_size * TOKENS_PER_ROW
        if batch and (full or width > lengths[batch[0]] * SPREAD + 4):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@torch.no_grad()
def next_logits(handle: ModelHandle, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits of the token behind every row, `[rows, vocab]`."""
    batch = handle.batch(rows)
    logits = handle.logits(batch)
    last = batch.mask.sum(1) - 1
    return logits[torch.arange(len(rows), device=logits.device), last]


def log_likelihoods(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of the tokens `[...]` from float32 logits `[..., vocab]`; float64, on the CPU.

    Not `log_softmax`: it adds one probability after the other to a float32, and what is small beside the sum is rounded
    off, in one direction: 1.6e-4 nats at 49,152 tokens of which one is sure. `sum` adds pairs; the rest is float64.
    NaN, and infinity at the top, give NaN.
    """
    if logits.ndim == 1:
        return _log_likelihoods(logits, tokens)
    most = AT_ONCE.get(logits.device.type, AT_ONCE_ELSEWHERE)
    size = max(1, most * len(logits) // max(1, logits.numel()))
    return torch.cat(
        [_log_likelihoods(*part) for part in zip(torch.split(logits, size), torch.split(tokens, size), strict=True)]
    )


def _log_likelihoods(logits: Tensor, tokens: Tensor) -> Tensor:
    top = logits.amax(-1, keepdim=True)
    total = (logits - top).exp_().sum(-1)
    said = logits.gather(-1, tokens.to(logits.device).unsqueeze(-1)) - top
    return said.squeeze(-1).cpu().double() - total.cpu().double().log()
