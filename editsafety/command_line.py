"""CommandLine: an editor that is a program, as it is asked for: `command: python edit.py --model {model} ...`.

The line is split as a shell would (`shlex`), but no shell runs it: no variable, pattern or pipe means anything in it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from editsafety.errors import UsageError

HEAD = "command:"
# What a place in braces stands for. The first three have to be in a line: without them nothing could be edited.
PLACES = {
    "model": "the folder of the model as it is now",
    "requests": "a JSON file, a list of requests",
    "out": "an empty folder for what it makes",
    "hparams": "the file of hyperparameters",
    "seed": "the seed of the run",
}
NEEDED = ("model", "requests", "out")
EXAMPLE = "command: python edit.py --model {model} --requests {requests} --out {out}"
_PLACE = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The words of a command line, with places in braces still open."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> Self:
        """The command line in an editor's name.

        Raises UsageError for one that cannot be split, has no program, an unknown place, or lacks one that is needed.
        """
        text = name.strip().removeprefix(HEAD).strip()
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise UsageError(
                f"editor {name!r}: cannot be split into words: {error}. Write it like {EXAMPLE!r}"
            ) from error
        found = [place for word in words for place in _PLACE.findall(word)]
        unknown = [place for place in found if place not in PLACES]
        known = ", ".join(f"{{{place}}} ({said})" for place, said in PLACES.items())
        if unknown:
            raise UsageError(f"editor {name!r}: {{{unknown[0]}}} is not known. Known: {known}.")
        lacking = [f"{{{place}}}" for place in NEEDED if place not in found]
        if lacking or not words:
            raise UsageError(f"editor {name!r}: lacks {', '.join(lacking)}. Write it like {EXAMPLE!r}")
        return cls(words)

    @property
    def label(self) -> str:
        """The program's short name: of its script (`edit-py`), of the module behind `-m`, or of the program itself."""
        scripts = [word for word in self.words if word.endswith((".py", ".sh"))]
        modules = [then for word, then in zip(self.words, self.words[1:], strict=False) if word == "-m"]
        name = Path((*scripts, *modules, self.words[0])[0]).name
        return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "program"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the line names, as far as there are any: its scripts, whatever it reads beside them."""
        return tuple(dict.fromkeys(Path(word).resolve() for word in self.words if Path(word).is_file()))

    def asks_for(self, place: str) -> bool:
        """Whether a place occurs in the line."""
        return any(place in _PLACE.findall(word) for word in self.words)

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """The words with every place filled in."""
        return [_PLACE.sub(lambda place: values[place[1]], word) for word in self.words]

    def refuse_absent(self) -> None:
        """Raise UsageError when there is no such program on this machine."""
        if shutil.which(self.words[0]) is None:
            raise UsageError(
                f"{self.words[0]}: there is no such program (needed for {shlex.join(self.words)!r}). Give its path, or "
                "install it; relative paths begin at the current folder."
            )


def is_command(name: str) -> bool:
    """Whether an editor's name is a command line."""
    return name.strip().startswith(HEAD)
