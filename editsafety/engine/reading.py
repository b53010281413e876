"""Reading: rows of tokens that are run together, their logits where they are read, their keys and values kept.

run_rows      rows padded on the right, as everywhere           first, what a prompt or a draft comes to
KeptRows      rows that end together: one token more a pass     then, as long as they go on
cannot_keep   why keys and values are of no use here            then whole texts are run
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from editsafety.engine.layers import stands_alone
from editsafety.model import kv_cache
from editsafety.model.architectures import has_row
from editsafety.model.handle import ModelHandle
from editsafety.model.logits import only_at

# What a pass costs by itself, in tokens: its calls, and reading all weights. Measured on a CPU: 61 (pocket-neo), 129
# (pocket-qwen), 54 (a Llama of 135 million); a card could do far more meanwhile.
PASS = {"cpu": 60}
PASS_ELSEWHERE = 500
# Ways to turn keys by their places that depend on how long the text has become: what is kept would be turned otherwise.
STRETCHING = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True, eq=False)
class FedRow:
    """Tokens, and the first place whose logits are read; those of all later places are read as well."""

    ids: tuple[int, ...]
    first: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What a pass gave."""

    # float32 `[places, vocab]`, row after row.
    logits: Tensor
    # The keys and values of every token, where they are kept; None, too, where the model did not put them there.
    cache: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Unfinished:
    """Rows of a pass that go on, and how many tokens of each."""

    cache: Any
    rows: Sequence[int]
    lengths: Sequence[int]

    def ending_at(self, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values, layer after layer, `[rows, heads, width, d]`, with the tokens of every row at its end."""
        at = torch.arange(width) - (width - torch.tensor(self.lengths)[:, None])
        rows, padding = torch.tensor(self.rows)[:, None, None], (at < 0)[:, None, :, None]
        where, padded = at.clamp(min=0)[:, None, :], bool((at < 0).any())
        heads = {
            count: torch.arange(count)[None, :, None] for count in {one.keys.shape[1] for one in self.cache.layers}
        }

        def moved(kept: Tensor) -> Tensor:
            chosen = kept[tuple(one.to(kept.device) for one in (rows, heads[kept.shape[1]], where))]
            # What stands in padding may be NaN, and NaN times an attention weight of zero is NaN.
            return chosen.masked_fill_(padding.to(kept.device), 0.0) if padded else chosen

        for layer in self.cache.layers:
            yield moved(layer.keys), moved(layer.values)


def cannot_keep(handle: ModelHandle) -> str | None:
    """Why whole texts are run for every token, as a sentence about this model; None where keys and values are kept."""
    name, config = handle.name, handle.model.config.get_text_config()
    if handle.engine.plain:
        return f"{name} is run plainly: shortcuts are switched off"
    if not stands_alone(handle):
        return f"{name} does not answer by its weights alone: a sidecar, or who asks in its place, may need whole texts"
    if not has_row(handle.model.config):
        return f"{name} is of a family that is not known here: its cache may hold other things than keys and values"
    if not kv_cache.takes_one(handle.model):
        return f"{name} ({type(handle.model).__name__}) takes no cache of keys and values"
    turned = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = {one.get("rope_type", one.get("type")) for one in (turned, *turned.values()) if isinstance(one, dict)}
    stretching = ", ".join(kind for kind in STRETCHING if kind in kinds)
    if stretching:
        return f"{name} turns keys by the length of the whole text (rope_type {stretching})"
    return None


def run_rows(handle: ModelHandle, rows: Sequence[FedRow], *, keep: bool) -> Pass:
    """Run rows in one batch. Without `keep` as `handle.logits` runs them."""
    batch = handle.batch([row.ids for row in rows])
    at = torch.tensor([(i, place) for i, row in enumerate(rows) for place in range(row.first, len(row))]).T
    if not keep:
        logits = handle.logits(batch)
        return Pass(logits[at[0].to(logits.device), at[1].to(logits.device)])
    from transformers import DynamicCache

    with only_at(handle, at[0], at[1]):
        # Without the config: layers with a window would keep the last columns only, padding included.
        ran = handle.run(batch.ids, batch.mask, cache=DynamicCache())
    held = _holds(ran.cache, handle.layers, batch.ids.shape)
    return Pass(torch.as_tensor(ran.logits)[0].float(), ran.cache if held else None)


def _holds(cache: Any, layers: int, shape: torch.Size) -> bool:
    """Whether a cache holds keys and values of all tokens `[rows, seq]` in all layers; a window holds the last only."""
    kept = [getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in ("keys", "values")]
    alike = [isinstance(one, Tensor) and one.ndim == 4 and (one.shape[0], one.shape[2]) == shape for one in kept]
    return len(alike) == 2 * layers and all(alike)


class KeptRows:
    """Keys and values of rows, padded on the left, so that a token can be put behind every one without a gap."""

    def __init__(self, handle: ModelHandle, parts: Sequence[Unfinished]) -> None:
        from transformers import DynamicCache

        self._handle = handle
        self._lengths = torch.tensor([length for part in parts for length in part.lengths], device=handle.device)
        width = int(self._lengths.max())
        self._mask = (torch.arange(width, device=handle.device) >= width - self._lengths[:, None]).long()
        self._cache = DynamicCache()
        for layer, kept in enumerate(zip(*(part.ending_at(width) for part in parts), strict=True)):
            keys, values = zip(*kept, strict=True)
            self._cache.update(torch.cat(keys), torch.cat(values), layer)
        self._places = kv_cache.takes_places(handle.model)

    def follow(self, tokens: Sequence[int]) -> Tensor:
        """Put a token behind every row; the logits `[rows, vocab]` of what follows it, float32."""
        ids = torch.tensor(tokens, device=self._handle.device)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], 1)
        places = self._lengths[:, None] if self._places else None
        ran = self._handle.run(ids, self._mask, cache=self._cache, places=places)
        self._cache, self._lengths = ran.cache, self._lengths + 1
        return torch.as_tensor(ran.logits)[:, -1].float()

    def only(self, rows: Sequence[int]) -> None:
        """Let the other rows go."""
        chosen = torch.tensor(rows, device=self._handle.device)
        self._mask, self._lengths = self._mask[chosen], self._lengths[chosen]
        for layer in self._cache.layers:
            at = chosen.to(layer.keys.device)
            layer.keys, layer.values = layer.keys[at], layer.values[at]


def deal(handle: ModelHandle, rows: Sequence[FedRow]) -> list[list[int]]:
    """Share rows out to passes, so that passes and padding together cost least; by their numbers."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    each = PASS.get(handle.device.type, PASS_ELSEWHERE)
    best = [(0, 0)]  # of the first n rows: the least cost, and where the last pass begins
    for end in range(1, len(order) + 1):
        width = len(rows[order[end - 1]])
        best.append(min((best[start][0] + each + width * (end - start), start) for start in range(end)))
    dealt, end = list[list[int]](), len(order)
    while end:
        dealt.append(order[best[end][1] : end])
        end = best[end][1]
    return dealt[::-1]
