"""Sentences: our own errors reach a user of pytest as one sentence, and not as a traceback."""

from __future__ import annotations

from typing import Any

import pytest

from editsafety.errors import EditSafetyError
from editsafety.escaping import line
from editsafety.foreign import contained

LONGEST = 4000  # characters of a sentence about what is wrong


class Said:
    """Turns our own errors into a failure that shows the sentence and no traceback, and so what an editor ends by."""

    def __init__(self) -> None:
        self._contained = contained("an editor")

    def __enter__(self) -> None:
        self._contained.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self._contained.__exit__(kind, error, trace)
        except EditSafetyError as ended:
            error = ended
        if isinstance(error, EditSafetyError):
            pytest.fail(f"ERROR {line(error, LONGEST)}", pytrace=False)


class Refused:
    """Turns our own errors, outside of any test, into one sentence and pytest's exit code 4."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, EditSafetyError):
            raise pytest.UsageError(line(error, LONGEST)) from error
