"""Whether an edit is still there when the model is kept with 4 bits per weight, one scale per 32 weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Literal

from editsafety.measures import Inputs
from editsafety.measures._rounding import quantised, to_4bit
from editsafety.measures._survival import SurvivalInPlace
from editsafety.model.handle import ModelHandle


class SurvivesFourBit(SurvivalInPlace):
    """`survives_4bit`: kept through rounding (`_rounding.py`); what is kept says `_survival.py`."""

    name: ClassVar[str] = "survives_4bit"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("survives_4bit",)

    def treated(self, handle: ModelHandle, inputs: Inputs) -> AbstractContextManager[None]:
        """The model in fewer bits."""
        return quantised(handle, to_4bit)


MEASURE = SurvivesFourBit()
