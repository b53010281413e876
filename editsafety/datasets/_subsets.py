"""Sets of cases that are kept model by model, as those that collapse a model are (arXiv 2402.09656, 2406.11263).

Read are rows in any published layout, as

- one file: a list or JSON lines, or one object of parallel lists
- one object with a list of rows for each model: {"gpt2-xl": [...], "gpt-j": [...]}
- a folder with a file (.json, .jsonl) for each model

Of several subsets the union is taken, a case that is in two of them once; `PATH#gpt2-xl` takes one of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path

from editsafety.datasets import _published, _requests, rows
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.reading import Entry
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow
from editsafety.errors import DataError, UnknownNameError

WHOLE = ""  # the subset that a file without subsets is


class SubsetRows(PublishedRows):
    """Every case once, named `name-<case_id>`, with subsets `name-<subset>-<case_id>`; the row's number without one."""

    def entries(self, path: Path) -> Iterable[Entry]:
        """The rows of every subset, or of the one that was asked for. Raises UnknownNameError for one not there."""
        path, wanted = _split(path)
        parts = dict(_parts(path))
        if wanted and wanted not in parts:
            raise UnknownNameError(f"subset of {path.name}", wanted, [part for part in parts if part != WHOLE])
        for part, part_rows in parts.items():
            if wanted in ("", part):
                yield from ((f"{self.name}-{part}" if part else self.name, row) for row in part_rows)

    def same(self, prefix: str, request: EditRequest) -> Hashable | None:
        """Prompt and target: a case of several subsets counts once."""
        return None if prefix == self.name else (request.filled, request.target_new)

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """As COUNTERFACT's: a row whose fields tell nothing lacks one of those."""
        return (_requests.either(row, f"{prefix}-{row.label('case_id')}"),)


def _split(path: Path) -> tuple[Path, str]:
    """The file and the subset of `PATH#subset`; a file that is really called so comes first."""
    if path.exists() or "#" not in path.name:
        return path, ""
    name, _, subset = path.name.rpartition("#")
    return path.with_name(name), subset


def _parts(path: Path) -> Iterator[tuple[str, Iterable[DataRow | DataError]]]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl"))
        if not files:
            raise DataError(
                f"{path}: is a folder without any .json or .jsonl file. Give cases, or the folder they are in."
            )
        for file in files:
            yield file.stem, _published.rows_of(file)
        return
    whole = rows.whole(path)
    if whole is None or not _by_subset(whole.values):
        yield WHOLE, _published.rows_of(path)
        return
    for part in whole.values:
        yield part, whole.records(part)


def _by_subset(values: Mapping[str, object]) -> bool:
    """Whether an object is one of lists of rows, and not a row or parallel lists of texts."""
    lists = [value for value in values.values() if isinstance(value, list)]
    return bool(lists) and len(lists) == len(values) and all(isinstance(row, dict) for value in lists for row in value)
