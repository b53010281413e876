"""Training: ten harmless steps of LoRA on ordinary texts, as anybody may do with a model that was handed on.

Beside every projection W x stands s B A x, A drawn, B zero (arXiv 2106.09685); Adam on the mean nats per token of a few
texts at a time. Afterwards the adapters are merged: W + s B A, a session around it.

What becomes of the unedited model is the same for every request, and takes as long as what becomes of an edited one. So
its adapters are worked out once (`engine/once.py`, which looks at every bit of the model before it believes that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice

import torch
from torch import Tensor

from editsafety.editing import gradients
from editsafety.edits.session import EditSession
from editsafety.engine.once import once
from editsafety.measures._rounding import projections
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

STEPS, TEXTS = 10, 4  # texts per step
RANK, SCALE, RATE = 8, 2.0, 2e-4  # as adapters are usually trained: alpha twice the rank
SEED = 0
VERSION = 1  # of this training: another one gives other adapters

Factors = tuple[Tensor, Tensor]  # A `[rank, d_in]`, B `[d_out, rank]`


@contextmanager
def trained_on(handle: ModelHandle, texts: Sequence[str]) -> Iterator[None]:
    """Inside the block the model has been trained for ten steps on texts of two tokens and more; the same every time.

    Raises nothing for texts past the context: they are cut off.
    """
    rows = [row for text in texts if len(row := handle.ids(text)[: handle.context]) > 1]
    rows = list(islice(cycle(rows), STEPS * TEXTS))
    # Inside of the session around an edit that one proves that nothing is left; without one this session has to know
    # what the model is.
    with EditSession(handle, prove="never" if handle.open_sessions else "in doubt") as session:
        adapters = _adapters(handle, rows)
        parameters = session.borrow([site.parameter for site in adapters])
        with torch.no_grad():
            for site, (inner, outer) in adapters.items():
                parameter = parameters[site.parameter]
                parameter.copy_(parameter.float() + site.stored(SCALE * outer @ inner))
        yield


def _adapters(handle: ModelHandle, rows: Sequence[Sequence[int]]) -> dict[Site, Factors]:
    """The trained adapters of the model as it is; of the unedited one they are known from the second time on."""

    def work() -> dict[str, Tensor]:
        pairs = enumerate(_train(handle, rows).values())
        return {f"{side}{at}": factor for at, pair in pairs for side, factor in zip("AB", pair, strict=True)}

    asked = {"trained": VERSION, "rows": rows, "numbers": [STEPS, TEXTS, RANK, SCALE, RATE, SEED]}
    found = once(handle, asked, work)
    return {site: (found[f"A{at}"], found[f"B{at}"]) for at, site in enumerate(projections(handle))}


def _train(handle: ModelHandle, rows: Sequence[Sequence[int]]) -> dict[Site, Factors]:
    """The adapters of every projection after the steps, each of which takes the next few rows."""
    adapters = _drawn(handle)
    tensors = [factor.requires_grad_() for pair in adapters.values() for factor in pair]
    optimiser = torch.optim.Adam(tensors, lr=RATE)
    with gradients.only(handle.model):
        for start in range(0, len(rows), TEXTS):
            loss = _nats(handle, rows[start : start + TEXTS], adapters)
            for tensor, slope in zip(tensors, torch.autograd.grad(loss, tensors, allow_unused=True), strict=True):
                tensor.grad = slope
            optimiser.step()
    return {site: (inner.detach(), outer.detach()) for site, (inner, outer) in adapters.items()}


def _drawn(handle: ModelHandle) -> dict[Site, Factors]:
    draw = torch.Generator().manual_seed(SEED)
    found = {}
    for site in projections(handle):
        device = handle.weight(site).device
        inner = torch.randn(RANK, site.d_in, generator=draw) / site.d_in**0.5
        found[site] = (inner.to(device), torch.zeros(site.d_out, RANK, device=device))
    return found


def _nats(handle: ModelHandle, rows: Sequence[Sequence[int]], adapters: Mapping[Site, Factors]) -> Tensor:
    """Mean nats per token with the adapters beside the projections."""
    batch = handle.batch(rows)
    with _beside(handle, adapters):
        scores = torch.log_softmax(handle.logits(batch)[:, :-1], -1)
    told = scores.gather(-1, batch.ids[:, 1:, None].to(scores.device))[..., 0]
    counted = batch.mask[:, 1:].to(told)
    return -(told * counted).sum() / counted.sum()


@contextmanager
def _beside(handle: ModelHandle, adapters: Mapping[Site, Factors]) -> Iterator[None]:
    """Inside the block every projection gives what its adapter gives as well."""

    def add(factors: Factors) -> Callable[..., Tensor]:
        inner, outer = factors

        def after(_module: object, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + (SCALE * (args[0].float() @ inner.T) @ outer.T).to(output.dtype)

        return after

    get = handle.model.get_submodule
    hooks = [get(site.module).register_forward_hook(add(factors)) for site, factors in adapters.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
