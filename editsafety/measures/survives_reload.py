"""Whether an edit is still there when the model is saved and loaded by another process.

A process takes seconds to start, and a large model is written whole: in a run, one case of each editor is reloaded by
every process that measures, the first on which the edit took. Plainly (`--plain`) all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from editsafety.measures import Inputs
from editsafety.measures._reloading import measured_after_reload
from editsafety.measures._survival import Survival
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement


@dataclass(frozen=True, slots=True)
class _Reloaded:
    """An edit of this editor was reloaded by this process."""

    editor: str


class SurvivesReload(Survival):
    """`survives_reload`: kept through saving and loading (`_reloading.py`); what is kept says `_survival.py`."""

    name: ClassVar[str] = "survives_reload"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("survives_reload",)

    def refuses(self, handle: ModelHandle, inputs: Inputs) -> str | None:
        """The unedited model came from its files; sidecars are in no checkpoint; one case of an editor is enough."""
        if inputs.edit is None:
            return "the unedited model is not saved"
        if inputs.edit.sidecars:
            return "this edit acts by code beside the weights, which no checkpoint holds"
        kept, mark = handle.engine.kept, _Reloaded(inputs.edit.editor)
        if not handle.engine.plain and mark in kept:
            return f"another edit of {inputs.edit.editor} was reloaded, and one takes seconds"
        kept[mark] = True
        return None

    def retake_treated(self, handle: ModelHandle, inputs: Inputs) -> dict[str, Measurement]:
        """What the other process finds."""
        return measured_after_reload(handle, inputs)


MEASURE = SurvivesReload()
