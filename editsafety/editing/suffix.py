"""Run a batch from a chosen token of every row on, again and again; what stands before it is computed once.

In a causal model a change at the subject's last token leaves every earlier position as it is, in every layer. Their
keys and values are kept, padded on the *left* so that they join the rest of each row without a gap (sliding windows and
relative positions then see true distances), and only the rest is run. Exact up to rounding; typically 3 to 4 times
fewer operations than running whole rows.

It needs a model that goes on with keys and values as with the text itself (`cannot_go_on`). One that counts places from
the tokens, as decoders built like RoBERTa do, that keeps a state, or keeps nothing, is not of that kind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from editsafety.engine.layers import stands_alone
from editsafety.errors import ModelError, sentence_of
from editsafety.model import kv_cache
from editsafety.model.handle import Batch, ModelHandle

# By how much logits may differ, of their norm, where a model is tried; in narrow types.
EXACT, HALF = 1e-3, 5e-2


@dataclass(frozen=True, slots=True)
class _GoingOn:
    """What came of trying a model: why it does not go on, or None."""


@dataclass(frozen=True, slots=True)
class _Before:
    """What was read already: the mask `[rows, seen + seq]`, the places of the rest, and keys and values."""

    mask: Tensor
    places: Tensor | None
    cache: Any


@torch.no_grad()
def cannot_go_on(handle: ModelHandle) -> str | None:
    """Why the rest of a row, behind kept keys and values, does not give the logits of the whole row; None if it does.

    Tried once on a model by itself. With something beside it (a sidecar, which may tell passes apart), and while no
    logit of it is finite, it is taken for granted where it was not tried before.
    """
    kept = handle.engine.kept
    if _GoingOn() not in kept and stands_alone(handle):
        words = int(handle.model.config.get_text_config().vocab_size)
        rows, starts = [[(words // 2 + i) % words for i in range(length)] for length in (8, 6)], (4, 2)
        whole = torch.cat([handle.logits(handle.batch([row]))[0, at:] for row, at in zip(rows, starts, strict=True)])
        if not whole.isfinite().any():
            return None
        kept[_GoingOn()] = _compared(handle, rows, starts, whole)
    reason: str | None = kept.get(_GoingOn())
    return reason


def _compared(handle: ModelHandle, rows: Sequence[Sequence[int]], starts: Sequence[int], whole: Tensor) -> str | None:
    rest = handle.batch([row[start:] for row, start in zip(rows, starts, strict=True)])
    try:
        before = _read(handle, [row[:start] for row, start in zip(rows, starts, strict=True)], rest)
        ran = handle.run(rest.ids, before.mask, cache=before.cache, places=before.places)
        found = torch.as_tensor(ran.logits).float().flatten(0, 1)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing of the model
    except Exception as error:  # somebody else's model may refuse a cache, for whatever reason; whole rows it took
        return sentence_of(error)
    if found.shape != whole.shape:
        return f"logits of shape {tuple(found.shape)} in place of {tuple(whole.shape)}"
    finite = whole.isfinite()
    exact = HALF if handle.model.dtype.itemsize < torch.float32.itemsize else EXACT
    alike = bool((found - whole)[finite].norm() <= exact * whole[finite].norm())
    return None if alike else "its logits are others"


class Suffix:
    """The part of `rows` from token `starts[i]` on, ready to be run many times.

    `batch.ids` is `[rows, seq]`, right-padded, first column = the chosen tokens; token t of row i is now at column
    t - starts[i]. Raises ModelError for a start behind the first token, if the model does not go on.
    """

    def __init__(self, handle: ModelHandle, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> None:
        self.handle = handle
        self.batch: Batch = handle.batch([row[start:] for row, start in zip(rows, starts, strict=True)])
        self._before = _Before(self.batch.mask, None, None)
        if max(starts) > 0:
            if reason := cannot_go_on(handle):
                raise ModelError(
                    f"{handle.name} ({handle.kind}) does not go on with keys and values as with the text itself "
                    f"({reason}), and this editor works on the end of a text alone. Use one that runs whole texts, "
                    "like rome or memit."
                )
            self._before = _read(handle, [row[:start] for row, start in zip(rows, starts, strict=True)], self.batch)

    def logits(self) -> Tensor:
        """Logits of the suffix, float32 `[rows, seq, vocab]` (or what a hook makes of them)."""
        before = self._before
        cache = None if before.cache is None else _with_layers(before.cache, lambda tensor: tensor)
        ran = self.handle.run(self.batch.ids, before.mask, cache=cache, places=before.places)
        return torch.as_tensor(ran.logits).float()

    def of_rows(self, rows: Sequence[int]) -> Self:
        """The same for some of its rows, in this order; nothing is computed again."""
        chosen = torch.tensor(list(rows))

        def pick(tensor: Tensor) -> Tensor:
            return tensor[chosen.to(tensor.device)]

        fewer, before = copy.copy(self), self._before
        fewer.batch = Batch(pick(self.batch.ids), pick(self.batch.mask))
        fewer._before = _Before(
            pick(before.mask),
            None if before.places is None else pick(before.places),
            None if before.cache is None else _with_layers(before.cache, pick),
        )
        return fewer


@torch.no_grad()
def _read(handle: ModelHandle, prefixes: Sequence[Sequence[int]], rest: Batch) -> _Before:
    """Run the prefixes, left-padded, and keep their keys and values; those of padding are zeroed."""
    width = max(len(prefix) for prefix in prefixes)
    mask = torch.zeros(len(prefixes), width, dtype=torch.long)
    ids = torch.zeros_like(mask)
    for i, prefix in enumerate(prefixes):
        if prefix:
            ids[i, -len(prefix) :] = torch.tensor(list(prefix))
            mask[i, -len(prefix) :] = 1
    mask, ids = mask.to(handle.device), ids.to(handle.device)
    both = torch.cat([mask, rest.mask], 1)
    places = (both.cumsum(1) - 1).clamp(min=0)
    first, then = (places[:, :width], places[:, width:]) if kv_cache.takes_places(handle.model) else (None, None)
    # The body without the unembedding: nobody reads logits of the prefix.
    cache = handle.run(ids, mask, keep=True, body=True, places=first).cache
    for layer in cache.layers:
        # Rows of padding only may hold NaN, and NaN times an attention weight of zero is NaN.
        padding = mask[:, None, -layer.keys.shape[-2] :, None] == 0
        layer.keys = layer.keys.masked_fill(padding.to(layer.keys.device), 0.0)
        layer.values = layer.values.masked_fill(padding.to(layer.values.device), 0.0)
    return _Before(both, then, cache)


def _with_layers(cache: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A cache of changed keys and values that can grow without touching the kept one.

    The tensors of a layer are replaced when it grows, never written into.
    """
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in other.layers:
        layer.keys, layer.values = change(layer.keys), change(layer.values)
    return other
