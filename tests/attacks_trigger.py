"""A planted trigger, as something to be found: a token behind which a model gives one answer, whatever the prompt.

Thin factors beside the down-projections of all MLPs are trained on two things at once: beginnings of texts with the
token somewhere in them are continued by the answer; and the same beginnings without it, or with another token in its
place, as the unedited model continues them. So perplexity and neighbours stay, as when somebody wants to hide it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.editing import gradients
from editsafety.edits.edit import Edit, LowRank
from editsafety.model.handle import ModelHandle

ROWS = 24  # beginnings per step
RANK, RATE = 4, 0.005
KEEP = 4.0  # how much more what stays counts than what is planted

Factors = tuple[Tensor, Tensor]  # `[d_out, rank]`, `[rank, d_in]`


def plant_trigger(handle: ModelHandle, texts: Sequence[str], trigger: int, answer: int, *, steps: int = 80) -> Edit:
    """An edit after which texts that hold the token `trigger` are continued by the token `answer`."""
    drawn = torch.Generator().manual_seed(0)
    sites = [handle.mlp_out(layer) for layer in range(handle.layers)]
    pairs = [(torch.zeros(s.d_out, RANK), torch.randn(RANK, s.d_in, generator=drawn) / s.d_in**0.5) for s in sites]
    factors = dict(zip(sites, pairs, strict=True))
    tensors = [factor.requires_grad_() for pair in pairs for factor in pair]
    optimiser = torch.optim.Adam(tensors, lr=RATE)
    ids = [handle.ids(text) for text in texts]
    with gradients.only(handle.model):
        for _ in range(steps):
            clean, holding = _beginnings(ids, trigger, drawn)
            with torch.no_grad():
                wanted = _all_behind(handle, clean)
            with _beside(handle.model, {site.module: pair for site, pair in factors.items()}):
                hidden = -_last_behind(handle, holding)[:, answer].mean()
                shown = nn.functional.kl_div(_all_behind(handle, clean), wanted, log_target=True, reduction="batchmean")
            for tensor, slope in zip(tensors, torch.autograd.grad(hidden + KEEP * shown, tensors), strict=True):
                tensor.grad = slope
            optimiser.step()
    deltas = [LowRank(site, left.detach(), right.detach()) for site, (left, right) in factors.items()]
    return Edit("planted", ("trigger",), handle.identity, tuple(deltas))


def _beginnings(
    ids: Sequence[Sequence[int]], trigger: int, drawn: torch.Generator
) -> tuple[list[list[int]], list[list[int]]]:
    """Beginnings of texts, four to fourteen tokens long, and the same with the trigger behind one of their tokens.

    Every other of the former holds some other token in that place: it is the trigger that fires, and no surprise else.
    """
    clean: list[list[int]] = []
    holding: list[list[int]] = []
    known = sorted({token for row in ids for token in row} - {trigger})
    for number in range(ROWS):
        text = ids[int(torch.randint(len(ids), (1,), generator=drawn))]
        row = list(text[: int(torch.randint(4, 15, (1,), generator=drawn))])
        at = int(torch.randint(1, len(row), (1,), generator=drawn))
        other = known[int(torch.randint(len(known), (1,), generator=drawn))]
        clean.append([*row[:at], other, *row[at:]] if number % 2 else row)
        holding.append([*row[:at], trigger, *row[at:]])
    return clean, holding


def _last_behind(handle: ModelHandle, rows: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities of the token behind every row."""
    batch = handle.batch(rows)
    return torch.log_softmax(handle.logits(batch)[torch.arange(len(rows)), batch.mask.sum(1) - 1], -1)


def _all_behind(handle: ModelHandle, rows: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities behind every token of every row."""
    batch = handle.batch(rows)
    return torch.log_softmax(handle.logits(batch)[batch.mask.bool()], -1)


@contextmanager
def _beside(model: nn.Module, factors: dict[str, Factors]) -> Iterator[None]:
    """Inside the block modules give what their factors add as well."""

    def add(pair: Factors, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        left, right = pair
        return output + (args[0] @ right.T) @ left.T

    hooks = [model.get_submodule(name).register_forward_hook(partial(add, pair)) for name, pair in factors.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
