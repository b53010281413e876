"""What a module saw token by token, and a forward pass in which every row carries a change of weights of its own.

`collect` gives x and g of every token of a loss. `changed` is the other direction: inside the block modules work as if
their weight were W + left @ right, with another change for every edit of the batch. No weight is written or copied, so
gradients flow into the factors, and many independent edits share one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.editing import gradients
from editsafety.editing.keys import by_token
from editsafety.editors.mend.network import Factors, Tokens
from editsafety.model import logits, trace
from editsafety.model.handle import Batch, ModelHandle
from editsafety.model.sites import Site


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids that belong to an edit, and which logits are read."""

    # The edit that they belong to, counted from 0.
    edit: int
    # All tokens of the row.
    ids: tuple[int, ...]
    # Where logits are read.
    positions: tuple[int, ...]
    # The token expected at each of these positions.
    labels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TokenReading:
    """A batch of rows, and what is read of it: `[n]` each."""

    # The rows, padded.
    batch: Batch
    # The edit of every row, `[rows]`.
    edits: Tensor
    # In which row.
    rows: Tensor
    # At which position.
    positions: Tensor
    # The token expected there.
    labels: Tensor

    @classmethod
    def of(cls, handle: ModelHandle, rows: Sequence[TokenRow]) -> TokenReading:
        """Pad the rows. Raises ModelError for one that is longer than the model's context."""
        read = [(r, *place) for r, row in enumerate(rows) for place in zip(row.positions, row.labels, strict=True)]
        at, positions, labels = torch.tensor(read, device=handle.device).reshape(-1, 3).T
        edits = torch.tensor([row.edit for row in rows], device=handle.device)
        return cls(handle.batch([row.ids for row in rows]), edits, at, positions, labels)

    def scores(self, handle: ModelHandle) -> Tensor:
        """Log-probabilities where they are read, float32 `[n, vocab]`."""
        with logits.only_at(handle, self.rows, self.positions):
            return logits.log_probabilities(handle.logits(self.batch)[0]).to(self.labels.device)

    def nll(self, scores: Tensor) -> Tensor:
        """Per edit: the mean over all tokens that it reads of -log P(label), nats, `[edits]`."""
        return _means(-scores.gather(1, self.labels[:, None])[:, 0], self.edits[self.rows])

    def divergence(self, before: Tensor, scores: Tensor) -> Tensor:
        """Per row: the mean over its tokens of KL(before || now), nats, `[rows]`."""
        return _means((before.exp() * (before - scores)).sum(1), self.rows)


def _means(values: Tensor, owners: Tensor) -> Tensor:
    count = int(owners.max()) + 1
    totals = torch.zeros(count, device=values.device, dtype=values.dtype).index_add(0, owners, values)
    return totals / torch.bincount(owners, minlength=count).clamp(min=1)


@dataclass(frozen=True, eq=False)
class Collected:
    """What went through the sites, and what came back."""

    # x and g of every site.
    tokens: list[Tokens]
    # The edit of each of these tokens, by site.
    owners: list[Tensor]
    # The loss of each edit, `[edits]`.
    losses: Tensor


def collect(
    handle: ModelHandle, sites: Sequence[Site], reading: TokenReading, loss: Callable[[Tensor], Tensor]
) -> Collected:
    """Both x and g of every site; `loss` turns `reading.scores` into one loss per edit.

    The sum of the losses is differentiated: edits do not meet, so the g of each token is that of its own edit's loss.
    Tokens whose x or whose g is zero in every component (padding, and what no loss depends on) are left out.
    """
    probes: dict[str, Tensor] = {}

    def probed(name: str) -> Callable[[Tensor], Tensor]:
        def change(output: Tensor) -> Tensor:
            probes[name] = torch.zeros_like(output, requires_grad=True)
            return output + probes[name]

        return change

    modules = [site.module for site in sites]
    with gradients.only(handle.model):
        with trace.watch(handle.model, change={name: probed(name) for name in modules}) as seen:
            losses = loss(reading.scores(handle))
        slopes = torch.autograd.grad(losses.sum(), [probes[name] for name in modules])
    shape = reading.batch.ids.shape
    owner = reading.edits[:, None].expand(shape).flatten()
    collected = Collected([], [], losses.detach())
    for name, slope in zip(modules, slopes, strict=True):
        x, g = (by_token(t.detach(), *shape).flatten(0, 1).to(owner.device).float() for t in (seen.inputs[name], slope))
        used = (x != 0).any(1) & (g != 0).any(1)
        collected.tokens.append(Tokens(x[used], g[used]))
        collected.owners.append(owner[used])
    return collected


@contextmanager
def changed(
    handle: ModelHandle, sites: Sequence[Site], factors: Sequence[Factors], owners: Sequence[Tensor], edits: Tensor
) -> Iterator[None]:
    """Inside the block row r of a batch runs with the change of edit `edits[r]`: the columns that this edit owns."""

    def hook(change: Factors, owner: Tensor) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def after(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            x = args[0].reshape(len(edits), -1, args[0].shape[-1]).float()  # opt flattens batch and sequence
            left, right = (factor.to(x.device) for factor in change)
            own = (edits[:, None] == owner).to(x)
            delta = (x @ right.T * own[:, None, :]) @ left.T
            edited: Tensor = output + delta.reshape(output.shape).to(output.dtype)
            return edited

        return after

    hooks = []
    try:
        for site, change, owner in zip(sites, factors, owners, strict=True):
            module = handle.model.get_submodule(site.module)
            hooks.append(module.register_forward_hook(hook(change, owner)))
        yield
    finally:
        for one in hooks:
            one.remove()
