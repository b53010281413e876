"""The property: a value, or one of our sentences, and within time."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from editsafety.errors import EditSafetyError
from tests.fuzz.targets import Files, Target

SECONDS = 10.0  # of processor time: a busy machine is no finding


class TooSlow(AssertionError):
    """A reader that does not come to its end."""


def check(target: Target, files: Files) -> bool:
    """Whether the files were taken. Raises whatever the reader raises that is not one of our sentences."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        began, refusal = time.process_time(), "taken"
        try:
            target.read(folder)
        except EditSafetyError as error:
            refusal = str(error).strip()
        assert refusal, f"{target.name}: refused without a sentence"
        if (seconds := time.process_time() - began) > SECONDS:
            raise TooSlow(f"{target.name}: {seconds:.0f} s")
        return refusal == "taken"
