"""RECT: of an edit, only the entries that change their weight the most, relative to it, are kept.

Per parameter, with W before this edit and dW all that the inner editor wants to add to it:

    rho = |dW / (W + 1e-8)|        dW' = dW where rho >= the k-th smallest rho, 0 elsewhere; k = int(entries (1 - keep))

What is not kept stays the weight that it was, bit for bit. An editor of several layers has computed all of them with
unmasked updates before. In a sequence every edit is masked by itself, against the weights as they are then; the inner
editor's carry passes through untouched.

The formula is the one of MEMIT_rect in AlphaEdit's code (float64). That of RECT's own repository has no 1e-8, stands
inside a string and never runs; its share would be 0.2. Where dW is not finite rho is not either, and the entry is kept:
a broken edit must not look mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Traits
from editsafety.edits.edit import Edit, Replace
from editsafety.hyperparameters import Hparams
from editsafety.regularisers import Regulariser, changes, norm, wide

EPSILON = 1e-8


class RectHparams(Hparams):
    """`rect_keep`: the share of entries that keep their change.

    The default is that of the only published code that runs, experiments/evaluate.py of AlphaEdit at f5248d3. The
    paper tries several; rect/ of Model-Editing-Hurt at 8f8d4dc says 0.2 where nothing executes it.
    """

    rect_keep: float = Field(default=0.4, gt=0.0, le=1.0)


class Rect(Regulariser):
    """RElative Change in weighT."""

    Own = RectHparams
    traits: ClassVar[Traits] = Traits(
        paper="Model Editing Harms General Abilities of Large Language Models, EMNLP 2024, arXiv 2401.04700",
        reference="https://github.com/JasonForJoy/Model-Editing-Hurt at 8f8d4dc",
    )

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """The inner edit with its smaller changes left out, as whole parameters.

        Notes: those of the inner editor; rect_kept (share of entries), rect_inner_norm (of the unmasked change) and
        update_norm (of what is left), Frobenius.
        """
        made = self.inner_edit(requests, carry)
        found, kept = changes(self.handle, made), {}
        masks = {name: largest(one.delta, wide(one.before), self.hparams.rect_keep) for name, one in found.items()}
        for name, change in found.items():
            kept[name] = torch.where(masks[name], change.delta, 0.0)
        notes = {
            "rect_kept": sum(int(mask.sum()) for mask in masks.values())
            / max(1, sum(map(torch.numel, masks.values()))),
            "rect_inner_norm": norm(change.delta for change in found.values()),
            "update_norm": norm(kept.values()),
        }
        deltas = tuple(Replace(name, change.with_delta(kept[name])) for name, change in found.items())
        return replace(made, editor=self.name, deltas=deltas, notes={**made.notes, **notes})


def largest(delta: Tensor, weight: Tensor, keep: float) -> Tensor:
    """Where `delta` is among the share `keep` of entries that change their weight the most; ties are all kept."""
    ratio = (delta / (weight + EPSILON)).abs()
    smallest = int(ratio.numel() * (1 - keep))
    if smallest == 0:
        return torch.ones_like(ratio, dtype=torch.bool)
    return ~(ratio < torch.kthvalue(ratio.flatten(), smallest).values)


REGULARISER = Rect
