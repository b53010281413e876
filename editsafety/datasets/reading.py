"""Reading: what became of the rows of a file: requests, rows that cannot be used, fields that are set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import ADVICE, DataRow
from editsafety.errors import DataError

MOST = 10  # bad rows that an error names

# A row, or why there is none, and what the ids of its requests begin with.
Entry = tuple[str, DataRow | DataError]
Parse = Callable[[DataRow, str], Iterable[EditRequest]]
# What two requests have in common that are one case given twice; None where every row counts.
Sameness = Callable[[str, EditRequest], Hashable | None]


@dataclass(frozen=True)
class Sifted:
    """The requests of a data set, and what of it is not in them."""

    requests: tuple[EditRequest, ...]
    # Fields that no request has a place for, with the number of rows in which they held something.
    aside: Mapping[str, int] = field(default_factory=dict)
    # Rows that were left out because they cannot be used: a sentence each, with file, row, field and reason.
    left_out: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is not in the requests, in words: a line for the fields, and one for each row that was left out."""
        lines = []
        if self.aside:
            counted = ", ".join(f"{name} ({_rows(count)})" for name, count in self.aside.items())
            lines.append(f"set aside, because a request has no place for it: {counted}")
        if self.left_out:
            whole = len(self.left_out) + len({request.source for request in self.requests})
            lines.append(f"{len(self.left_out)} of {whole} rows cannot be used and were left out")
        return (*lines, *self.left_out)


def gather(entries: Iterable[Entry], parse: Parse, *, skip: bool = False, same: Sameness | None = None) -> Sifted:
    """The requests of all rows. With `skip`, rows that cannot be used are left out.

    Without it, and where no row can be used at all, raises DataError, which names up to ten of them.
    """
    requests: list[EditRequest] = []
    aside: Counter[str] = Counter()
    bad: list[str] = []
    known: set[Hashable] = set()
    ids: dict[str, str] = {}
    for prefix, row in entries:
        try:
            if isinstance(row, DataError):
                raise row
            made = [one for one in parse(row, prefix) if same is None or _is_new(same(prefix, one), known)]
            _name(made, ids)
        except DataError as error:
            bad.append(str(error).removesuffix(f" {ADVICE}") if skip else str(error))
            continue
        requests += made
        aside.update(row.aside)
    if bad and not (skip and requests):
        raise DataError(_told(bad))
    return Sifted(tuple(requests), dict(sorted(aside.items())), tuple(bad))


def _is_new(key: Hashable | None, known: set[Hashable]) -> bool:
    if key is None:
        return True
    if key in known:
        return False
    known.add(key)
    return True


def _name(made: Iterable[EditRequest], ids: dict[str, str]) -> None:
    """Note the ids of a row's requests. Raises DataError, naming both rows, for one that is taken."""
    new: dict[str, str] = {}
    for request in made:
        first = {**ids, **new}.get(request.id) if request.id in ids or request.id in new else None
        if first is not None:
            raise DataError(
                f"{request.source}: the id {request.id!r} is already that of {first}. "
                "Change one: results are named by it."
            )
        new[request.id] = request.source
    ids.update(new)


def _told(bad: list[str]) -> str:
    if len(bad) == 1:
        return bad[0]
    more = f"\nand {len(bad) - MOST} more" if len(bad) > MOST else ""
    return f"{len(bad)} rows cannot be used:\n" + "\n".join(bad[:MOST]) + more


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
