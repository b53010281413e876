"""Data sets: one published layout per file. A loader turns a file into requests or texts; nothing here knows torch.

A file here or an entry point in group `editsafety.datasets`; it ends in `LOADER = TheClass()`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from editsafety import discovery
from editsafety.datasets import fetch
from editsafety.datasets.reading import Sifted, gather
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow
from editsafety.errors import DataError, UnknownNameError, UsageError
from editsafety.shipped import shipped

Holds = Literal["requests", "texts"]
Item = TypeVar("Item")
ANY_LAYOUT = "published"
OWN: dict[Holds, str] = {"requests": "jsonl", "texts": "plain"}  # a module called "texts" would hide the function


class Loader(Protocol):
    """Reads one layout. `holds` says what comes out: `EditRequest`s, or plain texts."""

    holds: ClassVar[Holds]

    def read(self, path: Path) -> tuple[Any, ...]:
        """Every row of the file, in order. Raises DataError naming file, row and field."""
        ...


@runtime_checkable
class Sifting(Protocol):
    """A loader of requests that can leave rows out, and says what it sets aside."""

    def sift(self, path: Path, *, skip: bool = False) -> Sifted:
        """What became of the rows; with `skip` those that cannot be used are left out."""
        ...


def requests(
    spec: str, limit: int | None = None, seed: int = 0, *, skip_bad_rows: bool = False, offline: bool = False
) -> tuple[EditRequest, ...]:
    """The requests of a data set. `spec` is

    - a shipped name: `pocket-world/normal`, `pocket-neo/hardcf`, `hardedit`
    - the path of a .jsonl file in our own layout (see `data/SOURCES.md`)
    - `LOADER:PATH`, a file in a published layout: `counterfact:counterfact.json`, `hardcf:HardCF.json`
    - the path of a .json file, whose layout is told by its fields
    - the name of a published data set with a pinned address: `qaedit_1k`, which is fetched if it is not here yet

    `limit` takes the first n requests; with a `seed` other than 0, n drawn with that seed, in file order. With
    `skip_bad_rows`, rows that cannot be used are left out; `offline`, nothing is fetched. Raises DataError (file, row
    or field; up to ten rows), UsageError, UnknownNameError.
    """
    return read_requests(spec, limit, seed, skip_bad_rows=skip_bad_rows, offline=offline).requests


def read_requests(
    spec: str, limit: int | None = None, seed: int = 0, *, skip_bad_rows: bool = False, offline: bool = False
) -> Sifted:
    """What `requests` returns, with what of the data set is not in them: rows left out, fields set aside."""
    loader, path = _loader(spec, "requests", offline=offline)
    if isinstance(loader, Sifting):
        found = loader.sift(path, skip=skip_bad_rows)
    else:
        read: tuple[EditRequest, ...] = loader.read(path)
        found = gather(
            (("", DataRow(one.source, i, {})) for i, one in enumerate(read)), lambda row, _: (read[row.number],)
        )
    if not found.requests:
        raise DataError(f"{path}: holds no rows.")
    return replace(found, requests=_limited(found.requests, limit, seed, spec))


def texts(spec: str, limit: int | None = None, *, offline: bool = False) -> tuple[str, ...]:
    """The texts of a data set, exactly as they are in the file (ME-PPL's begin with a space).

    `spec` as for `requests`: `english/texts`, `me_ppl_50` (fetched if it is not here yet, unless `offline`),
    `me_ppl:ME-PPL_1k.json`, or the path of a .jsonl or .txt file. `limit` takes the first n.
    """
    loader, path = _loader(spec, "texts", offline=offline)
    rows: tuple[str, ...] = loader.read(path)
    if not rows:
        raise DataError(f"{path}: holds no rows.")
    return _limited(rows, limit, 0, spec)


def path_of(spec: str) -> Path:
    """The file behind the `spec` of a set of requests. Raises UsageError, UnknownNameError; the file may be missing."""
    return _find(spec, "requests", offline=True)[1]


def names() -> list[str]:
    """Every name that can be given without a path: the shipped files and the data sets that can be fetched."""
    return sorted([*_shipped(), *fetch.SOURCES])


def loaders() -> list[str]:
    """Every loader; imports none."""
    return discovery.names("datasets")


def load(name: str) -> Loader:
    """The loader behind a name. Raises UnknownNameError."""
    if name not in loaders():
        raise UnknownNameError("loader", name, loaders())
    loader: Loader = discovery.load("datasets", name)
    return loader


def _loader(spec: str, wanted: Holds, *, offline: bool) -> tuple[Loader, Path]:
    """What reads a spec, and the file. Raises UsageError for a layout that holds something else."""
    name, path = _find(spec, wanted, offline=offline)
    loader = load(name)
    if loader.holds != wanted:
        raise UsageError(f"{spec!r}: the layout {name!r} holds {loader.holds}, but {wanted} are needed here.")
    return loader, path


def _find(spec: str, wanted: Holds, *, offline: bool) -> tuple[str, Path]:
    """The loader and the file that a spec means; a published data set is fetched where it is not here."""
    head, colon, tail = spec.partition(":")
    if colon and head in loaders():
        return head, Path(tail).expanduser()
    if spec in _shipped():
        return OWN[wanted], _shipped()[spec]
    if spec in fetch.SOURCES:
        return fetch.SOURCES[spec].loader, fetch.bring(spec, offline=offline)
    if spec in fetch.ELSEWHERE:
        raise UsageError(f"{spec!r} cannot be fetched: {fetch.ELSEWHERE[spec]}")
    path = Path(spec).expanduser()
    if path.suffix in (".jsonl", ".txt"):
        return OWN[wanted], path
    if path.suffix == ".json" and wanted == "requests":
        return ANY_LAYOUT, path
    if path.suffix == ".json":
        raise UsageError(f"{spec}: say which layout it has, LOADER:{spec} with one of {', '.join(loaders())}.")
    if path.is_file():
        raise UsageError(
            f"{spec}: what a file called so holds is not known; .jsonl, .json and .txt are read by themselves. Save "
            f"the data as one of those or, where it is JSON, give LOADER:{spec} with one of {', '.join(loaders())}."
        )
    hint = f"Or a .jsonl file of your own, or LOADER:PATH with one of {', '.join(loaders())}."
    raise UnknownNameError("data set", spec, names(), hint)


def _shipped() -> dict[str, Path]:
    data = shipped("data")
    files = sorted([*data.glob("*.jsonl"), *data.glob("*/*.jsonl")])
    return {path.relative_to(data).with_suffix("").as_posix(): path for path in files}


def _limited(rows: Sequence[Item], limit: int | None, seed: int, spec: str) -> tuple[Item, ...]:
    if limit is None:
        return tuple(rows)
    if limit < 1:
        raise UsageError(f"limit {limit} selects no row of {spec!r}; give 1 or more, or none for all.")
    if seed == 0 or limit >= len(rows):
        return tuple(rows[:limit])
    return tuple(rows[place] for place in sorted(random.Random(seed).sample(range(len(rows)), limit)))
