"""Whether an edit is still there when the model is kept with 8 bits per weight, one scale per output channel."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Literal

from editsafety.measures import Inputs
from editsafety.measures._rounding import quantised, to_int8
from editsafety.measures._survival import SurvivalInPlace
from editsafety.model.handle import ModelHandle


class SurvivesInt8(SurvivalInPlace):
    """`survives_int8`: kept through rounding (`_rounding.py`); what is kept says `_survival.py`."""

    name: ClassVar[str] = "survives_int8"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("survives_int8",)

    def treated(self, handle: ModelHandle, inputs: Inputs) -> AbstractContextManager[None]:
        """The model in fewer bits."""
        return quantised(handle, to_int8)


MEASURE = SurvivesInt8()
