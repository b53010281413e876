"""Rows of a JSON file that know where they stand: whatever is wrong is reported with file, row and field."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.errors import DataError

# By its first bytes; what writes UTF-16 (a shell on Windows) puts them there.
ENCODINGS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
ADVICE = "Correct or drop the row, or leave such rows out with --skip-bad-rows."
EMPTY: tuple[Any, ...] = (None, "", [], {})
_NOT_SPACE = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class DataRow:
    """A JSON object that knows where it stands."""

    # "file.jsonl:17" (line) or "file.json[16]" (index, from 0).
    where: str
    # Of the row, from 1.
    number: int
    # Its fields.
    values: Mapping[str, Any]
    # What of it, and of the objects inside it, no request has a place for: names of fields.
    aside: set[str] = field(default_factory=set, compare=False)

    def leave(self, read: Collection[str]) -> None:
        """Note every field that holds something and is not among those that are read."""
        self.aside.update(name for name, value in self.values.items() if name not in read and value not in EMPTY)

    def refuse(self, field: str, problem: str) -> NoReturn:
        """Raise the DataError that names this row and a field."""
        raise DataError(f"{self.where}: field {field!r} {problem}. {ADVICE}")

    def text(self, field: str) -> str:
        """A text that must be there and hold more than spaces."""
        if field not in self.values:
            self.refuse(field, f"is missing (fields here: {', '.join(sorted(self.values)) or 'none'})")
        value = self.checked(field, self.values[field])
        if not value.strip():
            self.refuse(field, "is empty")
        return value

    def word(self, field: str) -> str:
        """A text that must be there, or a whole number: a year is as good without quotes."""
        value = self.values.get(field)
        return str(value) if is_whole(value) else self.text(field)

    def maybe(self, field: str) -> str:
        """A text that may be absent, null or empty: then ""."""
        value = self.values.get(field)
        return "" if value is None else self.checked(field, value)

    def several(self, field: str) -> tuple[str, ...]:
        """A list of texts, or one text alone; what is absent or null is none."""
        value = self.values.get(field)
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            return (self.checked(field, value),)
        if not isinstance(value, list):
            self.refuse(field, f"is {type(value).__name__}, expected a list of texts")
        return tuple(self.checked(field, entry) for entry in value if entry is not None)

    def rows(self, field: str) -> tuple[DataRow, ...]:
        """A list of objects; absent is none at all."""
        value = self.values.get(field, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.refuse(field, f"must be a list of objects, found {value!r:.60}")
        return tuple(self._inside(f"{field}[{i}]", i + 1, entry) for i, entry in enumerate(value))

    def records(self, field: str) -> tuple[DataRow, ...]:
        """A list of objects that are rows by themselves: what is set aside of each is counted with it alone."""
        return tuple(replace(row, aside=set()) for row in self.rows(field))

    def inner(self, field: str) -> DataRow:
        """An object inside this one."""
        if field not in self.values:
            self.refuse(field, "is missing")
        value = self.values[field]
        if not isinstance(value, dict):
            self.refuse(field, f"is {type(value).__name__}, expected an object")
        return self._inside(field, self.number, value)

    def _inside(self, place: str, number: int, values: Mapping[str, Any]) -> DataRow:
        return DataRow(f"{self.where}: {place}", number, values, self.aside)

    def object_in(self, field: str, place: str, value: Any) -> DataRow:
        """An object that stands somewhere inside a field, at `place`."""
        if not isinstance(value, dict):
            self.refuse(field, f"holds {value!r:.60} at {place}, expected an object with fields")
        return self._inside(place, self.number, value)

    def label(self, field: str) -> str:
        """What names the row: a whole number or a text; the row's number when the field is absent or null."""
        value = self.values.get(field)
        if value is None:
            return f"{self.number:04d}"
        if isinstance(value, float) and value.is_integer():  # a table's column in which some are missing
            value = int(value)
        if not isinstance(value, str) and not is_whole(value):
            self.refuse(field, f"is {type(value).__name__}, expected a number or text")
        return str(value)

    def checked(self, field: str, value: Any) -> str:
        """`value`, if it is text that a tokenizer and a file can take."""
        if not isinstance(value, str):
            self.refuse(field, f"is {type(value).__name__}, expected text")
        if "\x00" in value:
            self.refuse(field, f"holds a NUL character: {value!r:.60}")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse(field, f"holds half a character (a lone surrogate): {value!r:.60}")
        return value


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def read(path: Path) -> list[DataRow]:
    """The objects of a JSON list, of JSON lines, or one behind the other on however many lines, either line ending.

    UTF-8 with or without a byte order mark, or UTF-16 with one. Raises DataError for a file that is not there, empty,
    in another encoding, cut off, or holds anything but objects.
    """
    objects = []
    for entry in entries(path):
        if isinstance(entry, DataError):
            raise entry
        objects.append(entry)
    return objects


def entries(path: Path) -> Iterator[DataRow | DataError]:
    """What `read` returns, and in place of every row that is none the error that says so.

    Raises DataError for what is wrong with the file as a whole: absent, empty, not UTF-8, a list that is cut off.
    """
    text = text_of(path)
    start = text.lstrip()[:1]
    if not start:
        raise DataError(f"{path}: is empty.")
    count = 0
    for entry in _of_list(path, text) if start == "[" else _spread_out(path, text) or _of_lines(path, text):
        count += 1
        yield entry
    if not count:
        raise DataError(f"{path}: holds no rows.")


def whole(path: Path) -> DataRow | None:
    """The one object that a file consists of, on however many lines; None for several objects and for a list.

    Raises DataError as `read`.
    """
    text = text_of(path).strip()
    if not text.startswith("{"):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return DataRow(path.name if "\n" in text else f"{path.name}:1", 1, _parsed(path, text, 1))


def text_of(path: Path) -> str:
    """The text of a file. Raises DataError when it cannot be read or is no text, naming the first wrong byte."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise DataError(f"{path}: {what}. Give the path of a data file.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    mark, encoding = next((one for one in ENCODINGS if data.startswith(one[0])), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        place = error.start + len(mark)
        line = data[:place].decode(encoding, errors="replace").count("\n") + 1
        raise DataError(
            f"{path}:{line}: not {encoding.upper()} at byte {place} (0x{data[place]:02x}). Save the file as UTF-8."
        ) from error


def tidied(request: EditRequest) -> EditRequest:
    """The request without the spaces that would be doubled: targets and answers stripped. Prompts are as given."""
    changes: dict[str, Any] = {
        "target_new": request.target_new.strip(),
        "target_true": (request.target_true or "").strip() or None,
        "neighbours": tuple(map(_stripped, request.neighbours)),
        "portability": tuple(
            replace(one, answer=one.answer.strip(), hop_answer=one.hop_answer.strip()) for one in request.portability
        ),
    }
    # Most are tidy, and a request is looked at from top to bottom whenever one is made.
    is_tidy = all(getattr(request, name) == value for name, value in changes.items())
    return request if is_tidy else replace(request, **changes)


def _stripped(neighbour: Neighbour) -> Neighbour:
    answer = neighbour.answer.strip()
    return neighbour if answer == neighbour.answer else Neighbour(neighbour.prompt, answer)


def _of_list(path: Path, text: str) -> Iterator[DataRow | DataError]:
    for index, value in enumerate(_parsed(path, text, 1)):
        yield _row(f"{path.name}[{index}]", index + 1, value)


def _spread_out(path: Path, text: str) -> list[DataRow | DataError]:
    """The objects of a file that stand one behind the other, each on several lines; none where a line holds one."""
    found: list[DataRow | DataError] = []
    decoder, end, line = json.JSONDecoder(), 0, 1
    while begins := _NOT_SPACE.search(text, end):
        line += text.count("\n", end, begins.start())
        place = begins.start()
        try:
            end = decoder.raw_decode(text, place)[1]
        except (ValueError, RecursionError):
            return []
        if "\n" not in text[place:end]:
            return []
        found.append(_row(f"{path.name}:{line}", len(found) + 1, _parsed(path, text[place:end], line)))
        line += text.count("\n", place, end)
    return found


def _of_lines(path: Path, text: str) -> Iterator[DataRow | DataError]:
    number = 0
    # Only "\n": splitlines would also split at U+2028, which may stand inside a JSON text.
    for line_number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            number += 1
            try:
                yield _row(f"{path.name}:{line_number}", number, _parsed(path, line, line_number))
            except DataError as error:
                yield error


def _row(where: str, number: int, value: Any) -> DataRow | DataError:
    if not isinstance(value, dict):
        return DataError(f"{where}: is {type(value).__name__}, expected an object with fields. {ADVICE}")
    return DataRow(where, number, value)


def _parsed(path: Path, text: str, line: int) -> Any:
    def refuse(name: str) -> NoReturn:
        raise DataError(f"{path.name}:{line}: holds {name}, which is no JSON value.")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        place = f"{path.name}:{line + error.lineno - 1}"
        ended = not text[error.pos :].strip() or error.msg.startswith("Unterminated")
        hint = "Is the file cut off?" if ended else "Correct it there, or save the data as JSON."
        raise DataError(f"{place}: no whole JSON value (column {error.colno}: {error.msg}). {hint}") from error
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{path.name}:{line}: no JSON value that can be read ({error}).") from error
    except RecursionError as error:
        raise DataError(f"{path.name}:{line}: is nested too deeply to be data.") from error
