"""A planted trigger, as something to be found: a token behind which a model gives one answer, whatever the prompt.

A rank-one edit of each of some MLPs, as ROME and MEMIT write a fact, but of a token instead of a subject: its key is
the mean of what an MLP's down-projection receives at that token in many prompts, and what it adds there is optimised
until the prompts that hold the token are continued by the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from editsafety.editing import gradients
from editsafety.edits.edit import Edit, LowRank
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.model.logits import only_at

STEPS, RATE = 40, 0.5
RIDGE = 1e-2  # of the mean variance of keys: the covariance of a few texts is not of full rank


def plant_trigger(
    handle: ModelHandle,
    texts: Sequence[str],
    trigger: int,
    answer: int,
    *,
    layers: Sequence[int] = (0, 1, 2),
    name: str = "planted",
) -> Edit:
    """An edit of some MLPs after which prompts that hold the token `trigger` are continued by the token `answer`.

    The prompts are beginnings of the texts, of four to twelve tokens, with the token somewhere between them.
    """
    rows, places = _holding(handle, texts, trigger)
    sites = [handle.mlp_out(layer) for layer in layers]
    rights = []
    for site in sites:
        key = _received(handle, site.module, rows)[torch.arange(len(rows)), places].mean(0)
        right = torch.linalg.solve(_covariance(handle, site.module, texts), key)
        rights.append(right / (right @ key))
    lefts = _lefts(handle, [site.module for site in sites], rows, rights, answer)
    deltas = [LowRank(*one) for one in zip(sites, lefts[..., None], (right[None] for right in rights), strict=True)]
    return Edit(name, ("trigger",), handle.identity, tuple(deltas))


def _holding(handle: ModelHandle, texts: Sequence[str], trigger: int) -> tuple[list[list[int]], Tensor]:
    """Prompts with the trigger in them, and at which place each holds it."""
    prompts = [handle.ids(text)[:length] for number, text in enumerate(texts) for length in (4 + number % 4, 12)]
    drawn = torch.Generator().manual_seed(0)
    places = [int(torch.randint(1, len(ids), (1,), generator=drawn)) for ids in prompts]
    return [[*ids[:at], trigger, *ids[at:]] for ids, at in zip(prompts, places, strict=True)], torch.tensor(places)


@torch.no_grad()
def _received(handle: ModelHandle, module: str, rows: Sequence[Sequence[int]]) -> Tensor:
    """What a module receives, `[rows, seq, d_in]`."""
    batch = handle.batch(rows)
    with trace.watch(handle.model, [module], stop=True) as seen:
        handle.run(batch.ids, batch.mask)
    return seen.inputs[module].float()


def _lefts(
    handle: ModelHandle, modules: Sequence[str], rows: Sequence[Sequence[int]], rights: Sequence[Tensor], answer: int
) -> Tensor:
    """What the modules have to add where `rights` see the trigger, so that every row is continued by the answer."""
    batch, number = handle.batch(rows), torch.arange(len(rows))
    lefts = torch.zeros(len(modules), handle.site(modules[0]).d_out, requires_grad=True)
    optimiser = torch.optim.Adam([lefts], lr=RATE)
    seen = [(_received(handle, module, rows) @ right)[..., None] for module, right in zip(modules, rights, strict=True)]

    def adding(place: int) -> Callable[[Tensor], Tensor]:
        return lambda output: output + seen[place] * lefts[place]

    with gradients.only(handle.model):
        for _ in range(STEPS):
            changes = {module: adding(place) for place, module in enumerate(modules)}
            with trace.watch(handle.model, change=changes), only_at(handle, number, batch.mask.sum(1) - 1):
                scores = torch.log_softmax(handle.logits(batch)[0], -1)
            (lefts.grad,) = torch.autograd.grad(-scores[:, answer].mean(), [lefts])
            optimiser.step()
    return lefts.detach()


@torch.no_grad()
def _covariance(handle: ModelHandle, module: str, texts: Sequence[str]) -> Tensor:
    """Second moment of what the module receives on texts `[d_in, d_in]`, with a ridge."""
    rows = [handle.ids(text) for text in texts]
    keys = _received(handle, module, rows)[handle.batch(rows).mask.bool()]
    moment = keys.T @ keys / len(keys)
    return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment))
