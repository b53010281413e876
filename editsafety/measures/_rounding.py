"""Rounding: what a model becomes that is kept in fewer bits, computed on plain tensors so that it runs everywhere.

- bfloat16: every weight to the nearest bfloat16 and back
- int8: every projection, one scale per output channel, w ~ s q with s = max|w| / 127 and q in -127 ... 127
- 4 bits: every projection, one scale per group of 32 weights along the input, s = max|w| / 7 and q in -7 ... 7
  (symmetric, round to nearest, as the plain formats of inference engines; no calibration, no outliers kept apart)

Projections are linear layers and Conv1D. Embeddings, norms, biases and the head stay as they are, as those engines do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from editsafety.edits.session import EditSession
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

GROUP = 32


@contextmanager
def rounded_weights(handle: ModelHandle, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block every weight is what a narrower dtype makes of it."""
    names = [name for name, parameter in handle.model.named_parameters() if parameter.is_floating_point()]
    with _treated(handle, names, lambda _, value: value.to(dtype).to(value.dtype)):
        yield


@contextmanager
def quantised(handle: ModelHandle, quantise: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block every projection is what `quantise` makes of its weight `[d_out, d_in]`, float32."""
    sites = {site.parameter: site for site in projections(handle)}

    def treat(name: str, value: Tensor) -> Tensor:
        site = sites[name]
        return site.stored(quantise(site.canonical(value).float())).to(value.dtype)

    with _treated(handle, list(sites), treat):
        yield


def to_int8(weight: Tensor) -> Tensor:
    """The weight `[d_out, d_in]` with 8 bits per entry and one scale per output channel."""
    return _to_levels(weight, 127)


def to_4bit(weight: Tensor) -> Tensor:
    """The weight `[d_out, d_in]` with 4 bits per entry and one scale per 32 entries of a row; the last may be fewer."""
    rows, width = weight.shape
    padded = nn.functional.pad(weight, (0, -width % GROUP))
    return _to_levels(padded.reshape(-1, GROUP), 7).reshape(rows, -1)[:, :width]


def projections(handle: ModelHandle) -> Sequence[Site]:
    """Every linear layer and Conv1D of the model but its head, each matrix once."""
    from transformers.pytorch_utils import Conv1D

    ends = {id(handle.model.get_input_embeddings().weight)}
    head = handle.model.get_output_embeddings()
    ends |= set() if head is None else {id(head.weight)}
    modules = handle.model.named_modules()
    chosen = [name for name, one in modules if isinstance(one, nn.Linear | Conv1D) and id(one.weight) not in ends]
    return [handle.site(name) for name in chosen]


def _to_levels(rows: Tensor, levels: int) -> Tensor:
    """Every row on a grid of so many steps on either side of zero, up to its largest entry."""
    scale = rows.abs().amax(-1, keepdim=True) / levels
    return torch.where(scale > 0, (rows / scale).round().clamp(-levels, levels) * scale, rows)


@contextmanager
def _treated(handle: ModelHandle, names: Sequence[str], treat: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Inside the block every named parameter is what `treat` makes of it; one copy of them is held, no more."""
    with EditSession(handle, prove="never") as session:
        parameters = session.borrow(names)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(treat(name, parameter.detach()))
        yield
