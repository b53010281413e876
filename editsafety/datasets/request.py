"""EditRequest: one fact to write into a model, as text. No torch here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from editsafety.datasets._seen import trimmed
from editsafety.errors import DataError

SLOT = "{}"
OPENS, CLOSES = "([{\"'“‘«¿¡-", ".,;:!?)]}\"'”’»…-"  # no space stands behind the ones or before the others


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A prompt whose answer an edit must not change."""

    # Filled: it holds no `{}`.
    prompt: str
    # The expected answer; "" where only its change is asked for.
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from the new fact: a prompt about something else, whose answer an edit should change as well."""

    # How it follows: "alias" (another name of the subject), "one_hop" (a fact about the new target), ...
    kind: str
    # Filled: it holds no `{}`.
    prompt: str
    # What continues it once the edit is made.
    answer: str
    # What has to be known beforehand for it to follow, a filled prompt ("The river that flows through Prague is the");
    # "" where the data does not say.
    hop: str = ""
    # What continues that.
    hop_answer: str = ""


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One fact to write.

    White space at the edges of a subject is noise: it is taken off, and put into the prompt where the prompt lacks it
    (a subject "France " cut out of "The capital of France is"). So are characters that do not show, such as marks of
    direction. White space of a prompt is content: chat templates end in a line break. Targets carry no leading space:
    the model handle knows what its tokenizer wants.
    """

    # By which results are named, unique in its data set.
    id: str
    # With exactly one `{}` for the subject.
    prompt: str
    # Whom or what the fact is about.
    subject: str
    # What shall continue the prompt.
    target_new: str
    # What continues it in truth, where that is known.
    target_true: str | None = None
    # The kind of fact, as the data set names it.
    relation: str = ""
    # Other filled prompts for the same fact.
    rephrasings: tuple[str, ...] = ()
    # What must stay as it is.
    neighbours: tuple[Neighbour, ...] = ()
    # What should change along with the fact.
    portability: tuple[Consequence, ...] = ()
    # Where the row came from ("hardcf.jsonl:17"); not part of the fact.
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        where = self.source or f"request {self.id!r}"
        for name in ("id", "prompt", "subject", "target_new"):
            _check(getattr(self, name), name, where)
        if self.prompt.count(SLOT) != 1:
            raise DataError(
                f"{where}: field 'prompt' must hold exactly one {{}} for the subject, "
                f"found {self.prompt.count(SLOT)}: {self.prompt!r:.200}."
            )
        self._trim_subject()
        if self.target_true is not None:
            _check(self.target_true, "target_true", where)
        if self.relation != "":
            _check(self.relation, "relation", where)
        for text in _texts(self.rephrasings, "rephrasings", where):
            _check(text, "rephrasings", where)
        for neighbour in self.neighbours:
            _check(neighbour.prompt, "neighbours", where)
        for one in self.portability:
            for text in (one.kind, one.prompt, one.answer, *((one.hop, one.hop_answer) if one.hop else ())):
                _check(text, "portability", where)

    def _trim_subject(self) -> None:
        subject = trimmed(self.subject)
        if subject in ("", self.subject):
            return
        first, last = ("".join(filter(str.isspace, edge)) for edge in self.subject.split(subject, 1))
        before, after = self.prompt.split(SLOT)
        first = "" if not before or before[-1].isspace() or before[-1] in OPENS else first
        last = "" if not after or after[0].isspace() or after[0] in CLOSES else last
        object.__setattr__(self, "subject", subject)
        object.__setattr__(self, "prompt", f"{before}{first}{SLOT}{last}{after}")

    @property
    def filled(self) -> str:
        """The prompt with the subject in place. Split, not format, since braces in a subject are text."""
        before, after = self.prompt.split(SLOT)
        return before + self.subject + after

    @property
    def subject_first(self) -> bool:
        """Whether the prompt begins with the subject (the pattern behind most ROME collapses)."""
        return self.prompt.startswith(SLOT)

    @property
    def slug(self) -> str:
        """The id as it appears in test ids, with letters, digits, `_`, `.` and `-` only."""
        return _NOT_IN_IDS.sub("-", self.id).strip("-") or "request"

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON line; empty fields are left out."""
        found = {name: value for name in _FIELDS if (value := getattr(self, name))}
        if self.neighbours:
            found["neighbours"] = tuple({"prompt": one.prompt, "answer": one.answer} for one in self.neighbours)
        if self.portability:
            found["portability"] = tuple(map(_filled, self.portability))
        return found

    @classmethod
    def from_json(cls, row: Mapping[str, Any], source: str = "") -> Self:
        """Read the project's own layout (see `data/SOURCES.md`); `source` is named in errors."""
        where = source or "request"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expected an object with named fields, found {type(row).__name__}.")
        if not row.keys() <= FIELDS:
            unknown = sorted(str(name) for name in set(row) - FIELDS)
            raise DataError(f"{where}: unknown field {unknown[0]!r}. Known fields: {', '.join(sorted(_FIELDS))}.")
        missing = [name for name in ("id", "prompt", "subject", "target_new") if name not in row]
        if missing:
            raise DataError(f"{where}: field {missing[0]!r} is missing.")
        values = dict(row)
        values["rephrasings"] = _texts(row.get("rephrasings", []), "rephrasings", where)
        values["neighbours"] = _neighbours(row.get("neighbours", []), where)
        values["portability"] = _consequences(row.get("portability", []), where)
        values["target_true"] = None if row.get("target_true") == "" else row.get("target_true")
        return cls(**values, source=source)

    def digest(self) -> str:
        """sha256 of everything that can change a result (`source` cannot)."""
        return hashlib.sha256(_IN_ORDER.encode(self.as_json()).encode()).hexdigest()


_IN_ORDER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=list)
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_.-]+")
_FIELDS = tuple(one.name for one in fields(EditRequest) if one.name != "source")
FIELDS = frozenset(_FIELDS)


def _check(value: Any, name: str, where: str) -> None:
    """A text with something in it that can be written to a file."""
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} is {type(value).__name__}, expected text.")
    if not value.strip():
        raise DataError(f"{where}: field {name!r} is empty. Give it a value, or leave it out if it may be missing.")
    if "\x00" in value:
        raise DataError(f"{where}: field {name!r} holds a NUL character: {value!r:.80}.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{where}: field {name!r} holds half a character (a lone surrogate): {value!r:.80}.")


def _texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{where}: field {name!r} must be a list of texts, found {value!r:.80}.")
    return tuple(value)


def _neighbours(value: Any, where: str) -> tuple[Neighbour, ...]:
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: field 'neighbours' must be a list, found {type(value).__name__}.")
    result = []
    for entry in value:
        if isinstance(entry, str):
            result.append(Neighbour(entry))
        elif isinstance(entry, Mapping) and isinstance(entry.get("prompt"), str):
            answer = entry.get("answer", "")
            if not isinstance(answer, str):
                raise DataError(f"{where}: field 'neighbours' has an answer that is not text: {answer!r:.80}.")
            result.append(Neighbour(entry["prompt"], answer))
        else:
            raise DataError(f"{where}: field 'neighbours' needs texts or objects with 'prompt', found {entry!r:.80}.")
    return tuple(result)


def _filled(consequence: Consequence) -> dict[str, str]:
    """The fields of a consequence that hold something."""
    return {name: text for name in consequence.__slots__ if (text := getattr(consequence, name))}


def _consequences(value: Any, where: str) -> tuple[Consequence, ...]:
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: field 'portability' must be a list, found {type(value).__name__}.")
    known, needed = {one.name for one in fields(Consequence)}, {"kind", "prompt", "answer"}
    for entry in value:
        texts = isinstance(entry, Mapping) and all(isinstance(text, str) for text in entry.values())
        if not texts or not needed <= set(entry) <= known or bool(entry.get("hop")) != bool(entry.get("hop_answer")):
            needs = "objects with 'kind', 'prompt' and 'answer' (perhaps 'hop' and 'hop_answer'), all of them texts"
            raise DataError(f"{where}: field 'portability' needs {needs}, found {entry!r:.80}.")
    return tuple(Consequence(**entry) for entry in value)
