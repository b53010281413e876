"""StoredRecords: the records of a run's cases, each read from the store when it is asked for. No torch here.

A record of 10 kB takes 25 kB once it is read, most of it texts and figures that nothing is judged by. Of a large run
single edits are read lean, with the measurements that are named and without their items and answers; whoever shows
a case up close asks for the `whole` record of it.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from editsafety.errors import StoreError
from editsafety.runs.case import Case
from editsafety.runs.case_record import SCHEMA, CaseRecord, Cost, Failure, Step
from editsafety.runs.measurement import Measurement
from editsafety.runs.weights_look import WeightsLook

if TYPE_CHECKING:
    from editsafety.runs.store import Store

FEW = 16  # items that are kept of a measurement: of each edited tensor, and not of each text


@dataclass(frozen=True, slots=True)
class ReadOf:
    """Which measurements are read of a single edit: of the unedited model, and of the edited one."""

    before: frozenset[str]
    after: frozenset[str]


class StoredRecords(Mapping[str, CaseRecord]):
    """By case id. `keys` is what the record of each case is found by, `only` what is read of single edits.

    Without `only` every record is read whole.
    """

    def __init__(self, store: Store, keys: Mapping[str, tuple[Case, str]], only: ReadOf | None = None) -> None:
        self._store, self._keys = store, keys
        self._lean = None if only is None else LeanReader(only)

    @property
    def is_lean(self) -> bool:
        """Whether single edits are read without all that nothing is judged by."""
        return self._lean is not None

    def __getitem__(self, case: str) -> CaseRecord:
        planned, key = self._keys[case]
        if self._lean is None or planned.is_course:
            return self.whole(case)
        try:
            return self._lean.read(self._store.text(key), planned)
        except ValueError as error:
            raise StoreError(
                f"{self._store.path}: case {case} cannot be read ({error}). Give another --out."
            ) from error

    def __contains__(self, case: object) -> bool:
        return case in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def whole(self, case: str) -> CaseRecord:
        """The record of a case with everything that was found. Raises KeyError."""
        record = self._store.record(self._keys[case][1])
        if record is None:
            raise StoreError(f"{self._store.path}: case {case} is gone. Run it again.")
        return record

    def body(self, case: str) -> dict[str, Any]:
        """The same as plain values, laid out as in the store. Raises KeyError."""
        found: dict[str, Any] = parse(self._store.text(self._keys[case][1]))
        return found


class LeanReader:
    """Reads single edits as far as something is judged by them; what many of them share is in memory once."""

    def __init__(self, only: ReadOf) -> None:
        self._only = only
        self._shared: dict[tuple[object, ...], Measurement] = {}
        self._looks: dict[str, WeightsLook] = {}

    def read(self, text: str, case: Case) -> CaseRecord:
        """From the text of a record; `case` is what it is of. Raises ValueError for anything else than a record."""
        body = parse(text)
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            raise ValueError(f"a record of another schema than {SCHEMA}")
        try:
            abilities, failure = tuple(body["abilities"]), body["failure"]
            return CaseRecord(
                body["case"],
                body["model"],
                body["editor"],
                body["stream"],
                case.requests,  # the same: a record is found by them
                case.schedule,
                before=self._measurements(body["before"], self._only.before, abilities),
                abilities=abilities,
                steps=tuple(self._step(row, abilities) for row in body["steps"]),
                failure=None if failure is None else Failure.read(failure),
                ended=body["ended"],
                remarks=tuple(body["remarks"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a whole record: {error}") from error

    def _measurements(
        self, rows: Mapping[str, Any], names: Collection[str], abilities: Collection[str]
    ) -> dict[str, Measurement]:
        found = {}
        for name, row in rows.items():
            if name in abilities:
                found[name] = Measurement.from_json(row)
            elif name in names:
                found[name] = self._measurement(row)
        return found

    def _measurement(self, row: Mapping[str, Any]) -> Measurement:
        if "of" in row or "applies" in row:
            return replace(Measurement.from_json(row), items=(), answers=())
        get = row.get
        items = get("items", ())
        kept = tuple(items) if len(items) <= FEW else ()
        value = row["value"]
        about = (row["name"], value, get("reason"), get("n", 0), get("stderr"), get("broken", False), kept)
        known = self._shared.get(about)
        if known is None:
            name, _, *rest = about
            known = Measurement(name, row["version"], row["unit"], value, *rest)
            if value is None or value in (0.0, 1.0) or len(self._shared) < 1000:
                self._shared[about] = known
        return known

    def _step(self, row: Mapping[str, Any], abilities: Collection[str]) -> Step:
        return Step(
            row["edits"],
            tuple(row["block"]),
            self._measurements(row["found"], self._only.after, abilities),
            row["notes"],
            Cost(**row["cost"]),
            row["edit_id"],
            tuple(row["declared"]),
            tuple(row["changed"]),
            tuple(row["rounded"]),
            tuple(row["leftovers"]),
            row["restored"],
            self._look(row.get("look", {}).get("pattern", "")),
        )

    def _look(self, pattern: str) -> WeightsLook:
        """Which tensors, the whole record tells."""
        if pattern not in self._looks:
            self._looks[pattern] = WeightsLook(pattern)
        return self._looks[pattern]


@contextmanager
def reading_many() -> Iterator[None]:
    """While very many records are read: nothing in them goes in circles, and looking for that takes time.

    What is done with the garbage collector is undone afterwards. What was read by then counts as old to it: else it
    would be looked through from end to end at the first occasion, and again at the next ones.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            if not gc.get_freeze_count():  # what somebody keeps apart on purpose stays apart
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def parse(text: str) -> Any:
    """JSON text as plain values, quickly where it can be. Raises ValueError."""
    try:
        return from_json(text, cache_strings="all")
    except ValueError:  # half a surrogate pair, which JSON's grammar allows and that reader does not
        return json.loads(text)
