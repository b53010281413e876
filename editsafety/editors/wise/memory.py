"""The side copies of WISE: those of a sequence as tensors, and at work beside a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from editsafety.editors._sidecar import Voice
from editsafety.editors.wise import ties
from editsafety.editors.wise.side_copy import distances
from editsafety.edits.edit import Sidecar


@dataclass(frozen=True, eq=False)
class WiseState:
    """What a sequence hands on."""

    # D `[d_out, d_in]`, the side copy that is being edited.
    side: Tensor
    # Where D may differ from 0, `[d_out, d_in]`.
    mask: Tensor
    # The finished sides, `[m, d_out, d_in]`.
    kept: Tensor
    # The smallest in-scope distances `[m + 1]` of the finished sides and, last, of D (infinite before its first edit).
    floors: Tensor
    # The number of edits.
    count: Tensor
    # By which the sidecars of one sequence know each other.
    lineage: Tensor

    def after_edit(self, *, save_freq: int, merge_freq: int, densities: float) -> Self:
        """After another edit: a full D joins the finished sides, and the youngest of these are merged when due."""
        count, state = self.count + 1, self
        if int(count) % save_freq == 0:
            state = replace(
                state,
                side=torch.zeros_like(self.side),
                kept=torch.cat([self.kept, self.side[None].to(self.kept)]),
                floors=torch.cat([self.floors, self.floors.new_tensor([math.inf])]),
            )
        if int(count) % merge_freq == 0:
            old = len(state.kept) - merge_freq // save_freq
            merged = ties.merge(state.kept[old:], densities)
            floor = state.floors[old:-1].min()
            floors = torch.cat([state.floors[:old], floor[None], state.floors[-1:]])
            state = replace(state, kept=torch.cat([state.kept[:old], merged[None]]), floors=floors)
        return replace(state, count=count)


@dataclass(eq=False)
class Routed(Voice, Sidecar):
    """Side copies at work."""

    kind: ClassVar[str] = "wise"
    # The module whose output is replaced where a side speaks.
    target: str
    # By which the sidecars of one sequence know each other.
    lineage: int
    # The name of the activation function in which distances are taken.
    activation: str
    # The differences, `[n, d_out, d_in]`.
    sides: Tensor
    # The distance `[n]` that a token has to exceed.
    bars: Tensor
    _here: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def speak(self, received: Tensor, output: Tensor) -> Tensor:
        """Each token goes to the side with the largest distance among those whose bar it exceeds, else nowhere."""
        if received.device not in self._here:
            self._here[received.device] = (self.sides.to(received), self.bars.to(received.device))
        sides, bars = self._here[received.device]
        best, spoken = torch.zeros_like(output[..., :1], dtype=torch.float32), output
        for side, bar in zip(sides, bars, strict=True):
            moved = output + linear(received, side)
            distance = distances(self.activation, moved, output)[..., None]
            wins = (distance > bar) & (distance > best)
            best, spoken = torch.where(wins, distance, best), torch.where(wins, moved, spoken)
        return spoken

    def tensors(self) -> Mapping[str, Tensor]:
        """sides, bars"""
        return {"sides": self.sides, "bars": self.bars}

    def settings(self) -> Mapping[str, Any]:
        """lineage, activation"""
        return {"lineage": self.lineage, "activation": self.activation}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """The inverse of `tensors` and `settings`."""
        return cls(target, int(settings["lineage"]), settings["activation"], tensors["sides"], tensors["bars"])
