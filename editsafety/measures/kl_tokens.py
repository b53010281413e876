"""Token divergence: how far the edit moved the model's predictions in the middle of ordinary text.

    kl(t) = KL(before || after) of token t + 1 of a text, given its tokens up to t, in nats    (see `_divergence.py`)

At every place of the texts that perplexity is measured on, and from the same passes. It is the figure that is known
from quantisation (llama.cpp's `--kl-divergence`). Perplexity looks at one token in each place, this at all of them: it
also sees a change that makes some tokens more probable and as many less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from editsafety.engine import passes
from editsafety.measures import Inputs, _divergence
from editsafety.model.handle import Batch, ModelHandle
from editsafety.model.scoring import token_nll
from editsafety.runs.measurement import Column, Measurement

FIGURES = (("kl_tokens", "nat"), ("kl_tokens_p99", "nat"), ("kl_tokens_agreement", "rate"))
# Bytes that are kept of the unedited model's logits, on the CPU. Fifty texts of 74 tokens take 728 MB for a vocabulary
# of 49,152 in float32; where they do not fit, the shortest texts that do are compared, and `n` says at how many places.
MOST = 1 << 30
FEWEST = 100  # places; what a limit of memory leaves fewer of says nothing about a 99th percentile


@dataclass(eq=False)
class _Predicted:
    """What the unedited model predicts in the texts, batch by batch, as far as there is room."""

    most: int
    # By digest of the batch: `[places, vocab]`.
    logits: dict[str, Tensor] = field(default_factory=dict)
    left_out: int = 0  # places for which there was no room
    finite: bool = True

    @property
    def places(self) -> int:
        """At how many places it is known."""
        return sum(map(len, self.logits.values()))

    def take(self, handle: ModelHandle, batch: Batch, count: int, read: Callable[[Tensor], Tensor]) -> None:
        """Keep the logits of a batch, if there is room for them."""
        whole = _divergence.narrowed(read(torch.arange(count)), handle.model.dtype)
        used = sum(one.nbytes for one in self.logits.values())
        if used + whole.nbytes > self.most:
            self.left_out += count
            return
        self.finite = self.finite and bool(whole.amax(-1).isfinite().all())
        self.logits[passes.digest(batch)] = whole


@dataclass(eq=False)
class _Compared:
    """What the edited model's predictions come to."""

    kept: _Predicted
    nats: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)

    def take(self, batch: Batch, count: int, read: Callable[[Tensor], Tensor]) -> None:
        """Compare the logits of a batch, a few places at a time."""
        before = self.kept.logits.get(passes.digest(batch))
        if before is None or len(before) != count:
            return
        size = _divergence.rows_at_once(batch.ids.device, before.shape[1])
        for chosen in torch.split(torch.arange(count), size):
            now = read(chosen.to(batch.ids.device))
            was = before[chosen].to(now.device, now.dtype)
            self.nats += _divergence.divergences(was, now).tolist()
            self.same += _divergence.same_tops(was, now).tolist()


class TokenDivergence:
    """Mean (`kl_tokens`) and 99th percentile of the divergence in nats, over all places of the texts but the last ones.

    `kl_tokens_agreement` is the share of places whose most probable token is what it was. `n` counts places. Paired
    with the unedited model: an unchanged model has exactly 0 and 1. Logits that are not finite are a finding: no value,
    `broken`. Of the unedited model's logits at most 1 GiB is kept, in the model's own type of numbers where that loses
    nothing, those of the shortest texts first; with room for fewer than a hundred places there is a reason in place of
    a figure.
    """

    name: ClassVar[str] = "kl_tokens"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "model"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("kl_tokens", "kl_tokens_p99", "kl_tokens_agreement")

    columns: ClassVar[tuple[Column, ...]] = (
        Column("kl_tokens", "KL tokens", "answers", "KL tok", over="median", order=61, dispensable=True),
    )

    def refer(self, handle: ModelHandle, inputs: Inputs) -> object:
        """The logits at every place, as far as there is room."""
        kept = _Predicted(MOST)
        _pass(handle, inputs, lambda batch: partial(kept.take, handle, batch))
        return kept

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The three figures."""
        kept = inputs.references.get(self.name)
        if not inputs.texts or not isinstance(kept, _Predicted):
            reason = "the unedited model was not asked" if inputs.texts else "no texts"
            return tuple(_divergence.missing(FIGURES, self.version, reason))
        if reason := _unusable(kept):
            return tuple(_divergence.missing(FIGURES, self.version, reason))
        compared = _Compared(kept)
        _pass(handle, inputs, lambda batch: partial(compared.take, batch))
        nats, same = compared.nats, compared.same
        if not nats:
            return tuple(_divergence.missing(FIGURES, self.version, "the unedited model was asked other texts"))
        return (
            _divergence.mean_of("kl_tokens", self.version, nats),
            _divergence.percentile_of("kl_tokens_p99", self.version, nats, 0.99),
            _divergence.agreement("kl_tokens_agreement", self.version, nats, same),
        )


def _unusable(kept: _Predicted) -> str:
    if not kept.finite:
        return "the unedited model's logits are not finite"
    if kept.left_out and kept.places < FEWEST:
        asked = kept.places + kept.left_out
        return f"{kept.most >> 20} MiB have room for the logits of {kept.places} of {asked} places; shorten the texts"
    return "" if kept.places else "no text has two tokens"


Looking = Callable[[Batch], Callable[[int, Callable[[Tensor], Tensor]], None]]


def _pass(handle: ModelHandle, inputs: Inputs, looking: Looking) -> None:
    """Run the texts, in the batches in which perplexity runs them: it finds them done then."""
    texts = tuple(inputs.texts)
    spelt = passes.keep(
        handle, ("rows of kl_tokens", texts), lambda: [handle.ids(text, special=False) for text in texts]
    )
    rows = [row for row in spelt if len(row) <= handle.context]  # perplexity refuses a longer one, in its own words
    token_nll(
        handle,
        rows,
        batch_size=inputs.batch_size,
        score=lambda handle, batch: passes.show_batch(handle, batch, looking(batch)),
    )


MEASURE = TokenDivergence()
