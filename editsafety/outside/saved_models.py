"""SavedModels: the model as folders, for programs: written once for each state of the weights, and found again."""

from __future__ import annotations

import shutil
from pathlib import Path

from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import no_bars

MOST = 2  # states that are kept: the unedited model, and where a sequence has come to

State = dict[str, tuple[int, int, int]]  # of each file: size, time of the last change, inode


class SavedModels:
    """Checkpoints of one model in its states, below a folder; the one that was not used for longest goes first."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._kept: dict[str, tuple[Path, State]] = {}  # by fingerprint, the last one used at the end
        self._written = 0

    def folder_of(self, handle: ModelHandle) -> Path:
        """The folder that holds the model as it is now, with its tokenizer. Raises EditorError."""
        state = handle.fingerprint()
        known = self._kept.pop(state, None)
        if known is None:
            while len(self._kept) >= MOST:
                self._remove(next(iter(self._kept)))
            known = self._write(handle)
        self._kept[state] = known
        return known[0]

    def refresh(self, handle: ModelHandle) -> tuple[str, ...]:
        """The files of the model's folder that are not what was written there; such a folder is not used again."""
        state = handle.fingerprint()
        folder, before = self._kept[state]
        now = _state_of(folder)
        changed = tuple(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))
        if changed:
            self._remove(state)
        return changed

    def _write(self, handle: ModelHandle) -> tuple[Path, State]:
        self._written += 1
        folder = self._place / f"model-{self._written}"
        try:
            with EditSession(handle, prove="never"), no_bars():  # saving writes into the model's config
                handle.model.save_pretrained(folder)
            handle.tokenizer.save_pretrained(folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise EditorError(
                f"{folder}: the model cannot be written there ({error}). Make room, or set TMPDIR."
            ) from error
        return folder, _state_of(folder)

    def _remove(self, state: str) -> None:
        shutil.rmtree(self._kept.pop(state)[0], ignore_errors=True)


def _state_of(folder: Path) -> State:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {str(path.relative_to(folder)): path.stat() for path in files}
    return {name: (one.st_size, one.st_mtime_ns, one.st_ino) for name, one in found.items()}
