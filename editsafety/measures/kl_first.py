"""First-token divergence: how far an edit moved what the model is about to say to prompts it has nothing to do with.

    kl(x) = KL(before || after) of the token behind prompt x, in nats        (see `_divergence.py`)

Sixty ordinary prompts that ship, the same for every run. It is what those who publish edited models compare them by:
below .01 they call a change minimal, .01 to .1 moderate, above .1 high; Arditi et al. (arXiv 2406.11717) discard edits
above .1. Perplexity does not see what it sees: an edit may leave texts as probable as they were, and answer otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from editsafety.measures import Inputs, _divergence
from editsafety.measures._prompts import neutral_prompts
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import by_length, next_logits
from editsafety.runs.measurement import Column, Measurement

FIGURES = (("kl_first", "nat"), ("kl_first_p99", "nat"), ("kl_first_worst", "nat"), ("kl_first_agreement", "rate"))


@dataclass(frozen=True, eq=False)
class _Answered:
    """What the unedited model is about to say."""

    # Ids of every prompt.
    prompts: tuple[tuple[int, ...], ...]
    # Of each in that order, on the CPU: `[prompts, vocab]`.
    logits: Tensor


class FirstTokenDivergence:
    """Mean (`kl_first`, items: one per prompt), 99th percentile and maximum of the divergence in nats, over prompts.

    `kl_first_agreement` is the share of prompts whose most probable next token is what it was. Paired with the unedited
    model: an unchanged model has exactly 0 and 1. Logits that are not finite are a finding: no value, `broken`.
    """

    name: ClassVar[str] = "kl_first"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "model"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("kl_first", "kl_first_p99", "kl_first_worst", "kl_first_agreement")

    columns: ClassVar[tuple[Column, ...]] = (
        Column("kl_first", "KL first", "answers", "KL 1st", over="median", order=60, dispensable=True),
    )

    def refer(self, handle: ModelHandle, inputs: Inputs) -> object:
        """Sixty rows of logits: 12 MB for a vocabulary of 49,152."""
        prompts = tuple(tuple(handle.ids(text)) for text in neutral_prompts(handle))
        return _Answered(prompts, _next(handle, prompts, inputs.batch_size))

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The four figures."""
        kept = inputs.references.get(self.name)
        if not isinstance(kept, _Answered):
            return tuple(_divergence.missing(FIGURES, self.version, "the unedited model was not asked"))
        if not kept.logits.amax(-1).isfinite().all():
            return tuple(_divergence.missing(FIGURES, self.version, "the unedited model's logits are not finite"))
        now = _next(handle, kept.prompts, inputs.batch_size)
        nats: list[float] = _divergence.divergences(kept.logits, now).tolist()
        return (
            _divergence.mean_of("kl_first", self.version, nats, items=nats),
            _divergence.percentile_of("kl_first_p99", self.version, nats, 0.99),
            _divergence.percentile_of("kl_first_worst", self.version, nats, 1.0),
            _divergence.agreement(
                "kl_first_agreement", self.version, nats, _divergence.same_tops(kept.logits, now).tolist()
            ),
        )


def _next(handle: ModelHandle, prompts: Sequence[Sequence[int]], batch_size: int) -> Tensor:
    """Logits of the token behind every prompt, on the CPU. In the same batches every time: rounding depends on them."""
    rows: dict[int, Tensor] = {}
    for chosen in by_length({i: len(ids) for i, ids in enumerate(prompts)}, batch_size):
        logits = next_logits(handle, [prompts[i] for i in chosen]).cpu()
        rows |= dict(zip(chosen, logits, strict=True))
    return torch.stack([rows[i] for i in range(len(prompts))])


MEASURE = FirstTokenDivergence()
