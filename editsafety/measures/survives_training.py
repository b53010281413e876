"""Whether an edit is still there when the model is trained a little on something else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Literal

from editsafety.measures import Inputs
from editsafety.measures._survival import SurvivalInPlace
from editsafety.measures._training import trained_on
from editsafety.model.handle import ModelHandle


class SurvivesTraining(SurvivalInPlace):
    """`survives_training`: kept through ten steps of LoRA on the texts of the run (`_training.py`).

    What is kept says `_survival.py`. Edits that weaken under training are common: arXiv 2511.05852 has 232
    configurations.
    """

    name: ClassVar[str] = "survives_training"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("survives_training",)

    def refuses(self, handle: ModelHandle, inputs: Inputs) -> str | None:
        """Without a text there is nothing to train on."""
        return None if any(len(handle.ids(text)) > 1 for text in inputs.texts) else "there are no texts to train on"

    def treated(self, handle: ModelHandle, inputs: Inputs) -> AbstractContextManager[None]:
        """The model after these steps."""
        return trained_on(handle, inputs.texts)


MEASURE = SurvivesTraining()
