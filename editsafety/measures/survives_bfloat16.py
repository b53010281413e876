"""Whether an edit is still there when the model is kept in bfloat16, the type in which most checkpoints are shipped."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Literal

import torch

from editsafety.measures import Inputs
from editsafety.measures._rounding import rounded_weights
from editsafety.measures._survival import SurvivalInPlace
from editsafety.model.handle import ModelHandle


class SurvivesBfloat16(SurvivalInPlace):
    """`survives_bfloat16`: kept through rounding (`_rounding.py`); what is kept says `_survival.py`."""

    name: ClassVar[str] = "survives_bfloat16"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("survives_bfloat16",)

    def treated(self, handle: ModelHandle, inputs: Inputs) -> AbstractContextManager[None]:
        """The model in fewer bits."""
        return rounded_weights(handle, torch.bfloat16)


MEASURE = SurvivesBfloat16()
