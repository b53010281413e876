"""Regularisers: each reins in the change that another editor wants, whatever editor that is. One method per file.

`rect(memit)` is an editor like any other, its class made here around that of `memit`. A file here, an entry point in
group `editsafety.regularisers`, or `path.py:Class`. The file ends in `REGULARISER = TheClass`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.edit import Delta, Edit, LowRank
from editsafety.errors import EditError, EditorError, UsageError
from editsafety.hyperparameters import Hparams
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout
from editsafety.names import unwrapped
from editsafety.progress import Progress


class Regulariser(Editor):
    """An editor around another one, which it lets compute its edit and whose change of the weights it then corrects.

    A member fills in `edit`, `traits` (paper and reference), and `Own`: its numbers. Each of their names begins with
    that of the method, since they share a file with the inner editor's. Everything else is the inner editor's.
    """

    Own: ClassVar[type[Hparams]] = Hparams
    inner: ClassVar[type[Editor]]

    @classmethod
    def around(cls, inner: type[Editor], folder: str) -> type[Regulariser]:
        """Make the class of this regulariser around an editor whose hyperparameters are in `folder`.

        Raises UsageError where there is nothing to regularise, or the numbers of both cannot be told apart.
        """
        method = cls.__name__.lower()
        if inner.traits.changes == "sidecar":
            raise UsageError(
                f"{method} reins in a change of weights, and {inner.__name__} makes none: it runs beside the model. "
                f"Use {inner.__name__} without {method}."
            )
        both = cls.Own.model_fields.keys() & inner.Hparams.model_fields.keys()
        if both:
            raise UsageError(
                f"{method} cannot be put around {inner.__name__}, which has {', '.join(sorted(both))} itself. "
                f"Is {method} there twice?"
            )
        own = {"on_top": frozenset(cls.Own.model_fields) | inner.Hparams.on_top, "__module__": cls.__module__}
        body = {
            "inner": inner,
            "Hparams": type(f"{cls.__name__}{inner.Hparams.__name__}", (cls.Own, inner.Hparams), own),
            "traits": replace(inner.traits, paper=_and(cls, inner, "paper"), reference=_and(cls, inner, "reference")),
            "folder": folder,
            "overrides": inner.overrides,
            "sidecars": inner.sidecars,
            "__module__": cls.__module__,
            "__doc__": cls.__doc__,
        }
        return type(f"{cls.__name__}{inner.__name__}", (cls,), body)

    @classmethod
    def lineage(cls) -> tuple[type[Editor], ...]:
        """The classes of the regulariser and those of the inner editor."""
        return (*super().lineage(), *cls.inner.lineage())

    def __init__(
        self, handle: ModelHandle, hparams: Any, artifacts: ArtifactStore, *, name: str, seed: int = 0
    ) -> None:
        super().__init__(handle, hparams, artifacts, name=name, seed=seed)
        _, inside = unwrapped(name)
        fields = self.inner.Hparams.model_fields
        numbers = self.inner.Hparams(**{field: getattr(hparams, field) for field in fields})
        self.inside = self.inner(handle, numbers, artifacts, name=inside, seed=seed)

    def missing(self) -> str | None:
        """What the inner editor lacks."""
        return self.inside.missing()

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Prepare the inner editor."""
        self.inside.prepare(progress, corpus)

    def inner_edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None) -> Edit:
        """The inner editor's edit. Raises EditorError when that is none, or more than a change of weights."""
        made = self.inside.edit(requests, carry)
        if not isinstance(made, Edit):
            raise EditorError(f"{self.inside.name}.edit() returned {type(made).__name__}, expected an editsafety Edit.")
        if made.sidecars:
            raise EditorError(
                f"{self.name}: the edit by {self.inside.name} runs something beside the model, and only changes of "
                "weights can be reined in."
            )
        return made


@dataclass(frozen=True, eq=False)
class StoredChange:
    """What an edit does to one parameter, as the module stores it."""

    # In the model's dtype.
    before: Tensor
    # In the model's dtype.
    after: Tensor
    # The difference in float64 before any rounding: what several deltas of the parameter come to together.
    delta: Tensor
    # `[rows, r]` and `[r, columns]` float64, which multiply to `delta` where every one of them is low-rank.
    factors: tuple[Tensor, Tensor] | None

    def with_delta(self, delta: Tensor) -> Tensor:
        """`before` + another delta (float64), in the model's dtype and where the parameter is."""
        return (wide(self.before) + delta).to(device=self.before.device, dtype=self.before.dtype)


@torch.no_grad()
def changes(handle: ModelHandle, edit: Edit) -> dict[str, StoredChange]:
    """What an edit does to each parameter of the model as it is now. Raises EditError when it does not fit."""
    parameters = dict(handle.model.named_parameters(remove_duplicate=False))
    grouped: dict[int, list[Delta]] = {}
    for delta in edit.deltas:
        if delta.parameter not in parameters:
            raise EditError(f"this edit changes {delta.parameter!r}, which {handle.name} does not have.")
        if isinstance(delta, LowRank) and (here := handle.site(delta.site.module)) != delta.site:
            raise EditError(f"this edit was made for {delta.site}; in {handle.name} it is {here}.")
        grouped.setdefault(id(parameters[delta.parameter]), []).append(delta)  # a tied one may go by either name
    return {deltas[0].parameter: _change(parameters[deltas[0].parameter], deltas) for deltas in grouped.values()}


def _change(parameter: Tensor, deltas: Sequence[Delta]) -> StoredChange:
    before = parameter.detach()
    after, total = before, torch.zeros_like(wide(before))
    factors: list[tuple[Tensor, Tensor]] = []
    for delta in deltas:
        after = delta.on(after)
        if isinstance(delta, LowRank):
            left, right = wide(delta.left).to(total.device), wide(delta.right).to(total.device)
            factors.append((left, right) if delta.site.layout is Layout.OUT_IN else (right.T, left.T))
            total = total + delta.site.stored(left @ right)
        else:
            total = wide(after) - wide(before)
    if len(factors) < len(deltas):
        return StoredChange(before, after, total, None)
    tall, flat = torch.cat([tall for tall, _ in factors], 1), torch.cat([flat for _, flat in factors], 0)
    return StoredChange(before, after, total, (tall, flat))


def wide(tensor: Tensor) -> Tensor:
    """float64, where the tensor is if that device knows float64 (Apple's GPUs do not)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).detach().double()


def norm(deltas: Iterable[Tensor]) -> float:
    """Frobenius norm of several matrices together."""
    return math.sqrt(sum(float(delta.square().sum()) for delta in deltas))


def _and(outer: type[Editor], inner: type[Editor], field: str) -> str:
    texts = (getattr(kind.traits, field) for kind in (outer, inner))
    return "; ".join(text for text in texts if text)
