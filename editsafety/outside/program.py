"""A program as an editor: `command: python edit.py --model {model} --requests {requests} --out {out}`.

It runs in an environment of its own, once for each edit. It is given the model as a folder, as it is now (edited, in a
sequence), and requests in the field's own dictionaries; what it leaves becomes an Edit (`left_by_program`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.command_line import CommandLine
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.editors.as_published import UnreadHparams, as_json
from editsafety.edits.edit import Edit, Replace, nothing
from editsafety.errors import EditorError, EditorTimeoutError, EditSafetyError, UsageError, sentence_of
from editsafety.model.handle import ModelHandle
from editsafety.numbers import many
from editsafety.outside.left_by_program import read_left
from editsafety.outside.program_folder import ProgramEnd, ProgramFolder
from editsafety.outside.saved_models import SavedModels
from editsafety.source_files import sources_of_script

PATIENCE = 600.0  # seconds for a request, where the run says nothing: its imports and its model come first each time
EARLIER = 0.9  # of the run's own limit: so it is the program that is stopped and says its last words, not the case


class ProgramEditor(Editor):
    """Runs a command line; `editor_of` makes an editor of one."""

    Hparams = UnreadHparams
    traits: ClassVar[Traits] = Traits(batch=True)
    folder = "programs"  # under hparams/, where nothing ships
    line: ClassVar[CommandLine]

    def __init__(
        self, handle: ModelHandle, hparams: Any, artifacts: ArtifactStore, *, name: str, seed: int = 0
    ) -> None:
        super().__init__(handle, hparams, artifacts, name=name, seed=seed)
        given = bool(self.hparams.model_dump())
        if self.line.asks_for("hparams") and not given:
            raise UsageError(f"{name} takes {{hparams}} and was given none: give --hparams FILE (YAML or JSON).")
        if given and not self.line.asks_for("hparams"):
            raise UsageError(
                f"{name} was given hyperparameters that it does not take: write {{hparams}} in its command."
            )
        self._place: ProgramFolder | None = None
        self._models: SavedModels | None = None

    @classmethod
    def sources(cls) -> tuple[Path, ...]:
        """The files in the command line, with what a script imports from its own package."""
        files = [one for path in cls.line.files for one in sources_of_script(path)]
        return (*files, *sorted(Path(__file__).parent.glob("*.py")))

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """What the program makes of the model. Its exit status, seconds and last lines are in the notes.

        Raises EditorError when it cannot be started, fails, takes too long, writes into the model that it was given, or
        leaves something that is no edit of the model.
        """
        self.refuse_none(requests)
        if self._place is None or self._models is None:
            self._place = ProgramFolder()
            self._models = SavedModels(self._place.folder)
        model = self._models.folder_of(self.handle)
        with self._place.fresh() as folder:
            out = folder / "out"
            out.mkdir()
            words = self.line.filled(self._fill(folder, requests) | {"model": str(model), "out": str(out)})
            ended = self._place.run(words, self._limit(len(requests)))
            written = self._models.refresh(self.handle)
            said = f"its last lines: {ended.said}" if ended.said else "it printed nothing"
            if ended.late or ended.status != 0:
                stopped = EditorTimeoutError if ended.late else EditorError
                raise stopped(f"the program {ended.how}; {said}")
            if written:
                raise EditorError(
                    f"the program wrote into the model that it was given ({', '.join(written)}) and not "
                    f"into a copy. Let it save to {{out}}; {said}"
                )
            try:
                found = read_left(self.handle, out)
            except EditSafetyError as error:
                wrong = sentence_of(error).replace(str(out), "{out}")  # of whose path nothing is left
                raise EditorError(f"{wrong} ({said})") from error
        ids = tuple(request.id for request in requests)
        edit = nothing(self.name, ids, self.handle.identity) if found is None else found
        return Edit(self.name, ids, self.handle.identity, edit.deltas, notes=_notes(ended, edit, empty=found is None))

    def _fill(self, folder: Path, requests: Sequence[EditRequest]) -> dict[str, str]:
        """Write what the program reads; the paths, by their places in the line."""
        rows, numbers = folder / "requests.json", folder / "hparams.json"
        rows.write_text(json.dumps([as_json(request) for request in requests], indent=1), encoding="utf-8")
        if self.line.asks_for("hparams"):
            numbers.write_text(_as_json_and_yaml(self.hparams.model_dump(mode="json")), encoding="utf-8")
        return {"requests": str(rows), "hparams": str(numbers), "seed": str(self.seed)}

    def _limit(self, requests: int) -> float | None:
        if self.patience is None:
            return PATIENCE * requests
        return EARLIER * self.patience if self.patience else None


def editor_of(name: str) -> type[ProgramEditor]:
    """The editor class of a command line. Raises UsageError."""
    line = CommandLine.of(name)
    return type("Program", (ProgramEditor,), {"line": line, "__module__": __name__, "__doc__": name})


def _notes(ended: ProgramEnd, edit: Edit, *, empty: bool) -> dict[str, float | str | bool]:
    ranks: dict[str, float | str | bool]
    ranks = {f"rank of {one.site.module}": one.left.shape[1] for one in edit.deltas if not isinstance(one, Replace)}
    own = {f"{name} (its own note)": value for name, value in edit.notes.items()}
    left = "nothing" if empty else "what is the model already" if not edit.deltas else many(len(edit.deltas), "tensor")
    ran: dict[str, float | str | bool] = {"exit status": ended.status, "program seconds": round(ended.seconds, 3)}
    return {**own, **ranks, "left": left, **ran, "last lines": ended.said}


def _as_json_and_yaml(values: Mapping[str, Any]) -> str:
    """JSON that a YAML reader takes for the same: to YAML 1.1 `1e-05` is text, and only `1.0e-05` a number."""
    text = json.dumps(values, indent=1)
    return re.sub(r'("(?:[^"\\]|\\.)*")|(-?\d+)(e[-+]\d+)', lambda one: one[1] or f"{one[2]}.0{one[3]}", text)
