"""The exceptions that editsafety raises on purpose::

    EditSafetyError
    ├── UsageError            an option, a name or a limit that is not valid
    │   └── UnknownNameError  a name that is not known; says which are
    ├── DataError             a row, a file or a download that cannot be used
    │   └── ChecksumError     bytes that are not the pinned ones
    ├── ModelError            a model that cannot be loaded or edited here
    ├── EditError             an edit that cannot be saved, loaded or applied
    ├── EditorError           an editor that broke its contract
    │   ├── EditorTimeoutError  an editor that was stopped because it took too long
    │   └── NotPreparedError  an editor whose slow part has not been run; names the command
    ├── MeasureError          a measure that broke its contract
    ├── UndoError             something survived the end of a session
    ├── SpoiltProcessError    this process can judge nothing any more; another one can
    ├── ClusterError          a cluster that cannot be reached or used, or whose workers die
    └── StoreError            results that cannot be read or written

Every message says what is wrong with which value, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterable

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_API_TOKEN")
SHORTEST = 8  # what is shorter is no token, and may be a part of any text


class EditSafetyError(Exception):
    """Base of everything raised here on purpose; its text is meant for the user."""

    raised_by = ""  # the measure or ability in whose code it came up, where there is one


class UsageError(EditSafetyError):
    """The command or call is invalid: a bad option, limit or combination."""


class UnknownNameError(UsageError):
    """A name that is not known. The message suggests the nearest and lists the rest."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        kinds = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        close = difflib.get_close_matches(name, known, n=1)
        suggestion = f"; did you mean {close[0]!r}?" if close else "."
        listing = f" Known {kinds}: {', '.join(known)}." if known else f" No {kinds} are known."
        super().__init__(f"no {kind} named {name!r}{suggestion}{listing}{' ' + hint if hint else ''}")


class DataError(EditSafetyError):
    """A data file or row that cannot be used. The message names file, row and field."""


class ChecksumError(DataError):
    """A file whose bytes are not the pinned ones."""


class ModelError(EditSafetyError):
    """A model that cannot be loaded, or has no weight where an editor needs one."""


class EditError(EditSafetyError):
    """An edit that cannot be saved, loaded or applied to this model."""


class EditorError(EditSafetyError):
    """An editor that broke its contract (returned no edit, read a wrong shape ...)."""


class EditorTimeoutError(EditorError):
    """An editor that was stopped because it took too long."""


class MeasureError(EditSafetyError):
    """A measure that broke its contract: it returned a figure that is not its own, or no measurement, or it failed."""


class NotPreparedError(EditorError):
    """The slow, data-hungry part of an editor has not been run yet."""

    def __init__(self, editor: str, model: str, missing: str) -> None:
        super().__init__(
            f"{editor} on {model} needs {missing}, which has not been made yet. "
            f"Run: editsafety prepare --model {shlex.quote(model)} --editor {shlex.quote(editor)}"
        )


class UndoError(EditSafetyError):
    """Something that was changed inside a session is still changed after it.

    `running` is what goes on by itself (threads), so that no copy of the weights brings peace; `lasting` is what the
    process keeps whatever is loaded (a mode that cannot be left); `leftovers` is what was put back beside it, and may
    be the cause.
    """

    def __init__(
        self,
        findings: Iterable[str],
        *,
        running: Iterable[str] = (),
        lasting: Iterable[str] = (),
        leftovers: Iterable[str] = (),
    ) -> None:
        self.running, self.lasting = tuple(running), tuple(lasting)
        self.findings = (*findings, *self.running, *self.lasting)
        told = [one for one in leftovers if one not in self.findings]
        put_back = [f"put back was: {'; '.join(told)}"] if told else []
        super().__init__("the model is not what it was before the edit: " + "; ".join([*self.findings, *put_back]))


class SpoiltProcessError(EditSafetyError):
    """Nothing can be judged in this process any more: models do not behave in it as they did. A new one is needed."""


class ClusterError(EditSafetyError):
    """A cluster that cannot be reached, that has no room for a worker, or whose workers die one after the other."""


class StoreError(EditSafetyError):
    """Results that cannot be read or written."""


def sentence_of(error: BaseException) -> str:
    """An error in words, for a record: our own say it themselves, of any other the class is said as well.

    Never raises: an error of somebody else's class may fail to say anything.
    """
    try:
        said = str(error)
    except BaseException as broken:  # whatever it is, it is about that error
        said = f"(what it says is not known: its __str__ raised {type(broken).__name__})"
    ours = isinstance(error, EditSafetyError)
    return masked(said if ours else f"{type(error).__name__}: {said}".removesuffix(": "))


def masked(text: str) -> str:
    """Somebody else's text without passwords in addresses and without the hub's tokens: records are passed on."""
    for name in TOKENS:
        if (token := os.environ.get(name, "").strip()) and len(token) >= SHORTEST:
            text = text.replace(token, "***")
    return re.sub(r"(?<=://)[^/\s:@]*:[^/\s@]*@", "***@", text)
