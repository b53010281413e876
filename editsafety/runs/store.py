"""Store: the results of one run in one SQLite file (WAL). No torch here.

A case is committed after every measured step; a single edit has one. It is found again by its key, a sha256 of
everything that can change the result. That one mechanism is resume, sharing between workers, and caching. Workers claim
what they are about to compute; a claim of a dead process is void.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from editsafety.errors import StoreError
from editsafety.runs.case import Case
from editsafety.runs.case_record import SCHEMA, CaseRecord
from editsafety.runs.fact import RunFact
from editsafety.runs.facts import KINDS, RunFacts
from editsafety.runs.stored_records import ReadOf, StoredRecords

Known = TypeVar("Known", bound=RunFact)

TABLES = """
CREATE TABLE IF NOT EXISTS facts (kind TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, name));
CREATE TABLE IF NOT EXISTS cases (key TEXT PRIMARY KEY, id TEXT NOT NULL, ended INTEGER NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS starts (key TEXT PRIMARY KEY, times INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, pid INTEGER NOT NULL, born TEXT NOT NULL);
"""
# What older stores lack. The index has what is asked most often without the records, which are 10 kB each.
LATER = """CREATE TABLE IF NOT EXISTS unedited (key TEXT PRIMARY KEY, found TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS cases_ended ON cases (ended, key);
"""
DEATHS = 3  # so often the process that runs a case may be killed before the case is given up
PATIENCE = 60.0  # seconds to wait for another process


class Store:
    """Open or make the store of a run. Raises StoreError when the file is not one, or of another schema.

    Every method raises StoreError when the file cannot be read or written; what was committed before stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            self._prepare()
            status = path.stat()
            self._file = (status.st_dev, status.st_ino)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{path}: cannot be used as a store ({error}). Move it away, or give another --out."
            ) from error
        if self._schema != SCHEMA:
            self._db.close()
            other = f"{path}: a store of schema {self._schema}; this version reads {SCHEMA}. Give another --out."
            raise StoreError(other)

    def note(self, fact: RunFact) -> None:
        """Keep a fact about the run, in place of the one of that kind and name."""
        # Half a surrogate pair, which an error's text may hold, is spelled out: no reader of UTF-8 JSON takes it.
        body = json.dumps(asdict(fact), allow_nan=False, ensure_ascii=False)
        text = re.sub("[\ud800-\udfff]", lambda half: f"\\\\u{ord(half[0]):04x}", body)
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (fact.kind, fact.name, text))

    def fact(self, kind: type[Known], name: str = "") -> Known | None:
        """A fact about the run, or None."""
        rows = self._read("SELECT value FROM facts WHERE kind = ? AND name = ?", (kind.kind, name))
        return self._fact(kind, rows[0][0]) if rows else None

    def noted(self, kind: type[RunFact]) -> int:
        """Number of facts of one kind."""
        return int(self._read("SELECT COUNT(*) FROM facts WHERE kind = ?", (kind.kind,))[0][0])

    def facts(self) -> RunFacts:
        """Every fact about the run."""
        return RunFacts.of(self.each_fact())

    def each_fact(self) -> Iterator[RunFact]:
        """Every fact by itself, by kind and name."""
        rows = self._read("SELECT kind, value FROM facts ORDER BY kind, name")
        return (self._fact(KINDS[kind], value) for kind, value in rows if kind in KINDS)

    def _fact(self, kind: type[Known], text: str) -> Known:
        try:
            return TypeAdapter(kind).validate_json(text)
        except ValidationError as error:
            raise StoreError(f"{self.path}: what it says of {kind.kind} cannot be read. Give another --out.") from error

    def record(self, key: str) -> CaseRecord | None:
        """The case of a key as far as it was run (`ended` tells whether that is all of it), or None."""
        rows = self._read("SELECT id, record FROM cases WHERE key = ?", (key,))
        if not rows:
            return None
        try:
            return CaseRecord.from_text(rows[0][1])
        except ValueError as error:
            raise StoreError(f"{self.path}: case {rows[0][0]} cannot be read ({error}). Give another --out.") from error

    def unedited(self, key: str) -> dict[str, Any] | None:
        """Measurements of the unedited model as JSON values, by what they are found by; None where there are none."""
        rows = self._read("SELECT found FROM unedited WHERE key = ?", (key,))
        found: dict[str, Any] | None = json.loads(rows[0][0]) if rows else None
        return found

    def keep_unedited(self, key: str, found: Mapping[str, Any]) -> None:
        """Keep measurements of the unedited model for whoever needs them later."""
        with self._writing():
            values = (key, json.dumps(found, allow_nan=False))
            self._db.execute("INSERT OR REPLACE INTO unedited VALUES (?, ?)", values)

    def each_unedited(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All of these, with what they are found by."""
        keys = self._read("SELECT key FROM unedited ORDER BY key")
        return ((key, found) for (key,) in keys if (found := self.unedited(key)) is not None)

    def text(self, key: str) -> str:
        """The record of a key as it is written. Raises StoreError where there is none."""
        rows = self._read("SELECT record FROM cases WHERE key = ?", (key,))
        if not rows:
            raise StoreError(f"{self.path}: a case that was there is gone. Run it again.")
        text: str = rows[0][0]
        return text

    def records(self) -> list[CaseRecord]:
        """Every case, run to its end or not, by id."""
        return [record for _, record in self.each_record()]

    def each_record(self) -> Iterator[tuple[str, CaseRecord]]:
        """Every case as `records` gives them, with what it is found by."""
        keys = self._read("SELECT key FROM cases ORDER BY id, key")
        return ((key, record) for (key,) in keys if (record := self.record(key)) is not None)

    def finished(
        self,
        cases: Iterable[Case],
        only: ReadOf | None = None,
        *,
        begun: bool = False,
        digests: Mapping[str, str] = MappingProxyType({}),
    ) -> StoredRecords:
        """The records of those of these cases that were run to their end, by case id; no model is needed for that.

        `only` names the measurements that are read of single edits, where not all are; `begun` takes those cases, too,
        that were not run to their end. `digests` are those of single edits, by id, as far as they are known.
        """
        query = "SELECT key FROM cases" if begun else "SELECT key FROM cases WHERE ended"
        facts, there = self.facts(), {key for (key,) in self._read(query)}
        found = {}
        for case in cases:
            name = case.id
            key = facts.key_of(case, "" if case.is_course else digests.get(name, ""))
            if key is not None and key in there:
                found[name] = case, key
        return StoredRecords(self, found, only)

    def count(self) -> int:
        """Number of cases that were run to their end."""
        return int(self._read("SELECT COUNT(*) FROM cases WHERE ended")[0][0])

    def put(self, key: str, record: CaseRecord) -> None:
        """Commit a case as far as it was run.

        Where it has ended, the claim on it is given up. Where it has not, it got further, so it counts as started once,
        whoever died of it.
        """
        text = record.to_text()
        with self._writing():
            values = (key, record.case, bool(record.ended), text)
            self._db.execute("INSERT OR REPLACE INTO cases VALUES (?, ?, ?, ?)", values)
            self._db.execute("UPDATE starts SET times = 1 WHERE key = ?", (key,))
            if record.ended:
                self._db.execute("DELETE FROM claims WHERE key = ?", (key,))
                self._db.execute("DELETE FROM starts WHERE key = ?", (key,))

    def start(self, key: str) -> int:
        """Note that a case is started; how often it was before, without coming to an end of any kind."""
        with self._writing():
            rows = self._db.execute("SELECT times FROM starts WHERE key = ?", (key,)).fetchall()
            before = int(rows[0][0]) if rows else 0
            self._db.execute("INSERT OR REPLACE INTO starts VALUES (?, ?)", (key, before + 1))
        return before

    def leave(self, key: str) -> None:
        """Note that a case was left in good order (Ctrl-C): it counts as never started."""
        with self._writing():
            self._db.execute("DELETE FROM starts WHERE key = ?", (key,))

    def claim(self, keys: Sequence[str], most: int, *, workers: int = 1) -> list[str]:
        """Claim up to `most` of these keys for this process: neither finished nor claimed by a living process.

        Of what is left for several workers each takes half of its share at most, and one key at least: towards the end
        fewer at a time, so that all of them come to the end together.
        """
        me = (os.getpid(), _born(os.getpid()))
        with self._writing():
            for key, pid, born in self._db.execute("SELECT key, pid, born FROM claims").fetchall():
                if (pid, born) == me or not _alive(pid, born):
                    self._db.execute("DELETE FROM claims WHERE key = ?", (key,))
            taken = {
                row[0] for row in self._db.execute("SELECT key FROM claims UNION SELECT key FROM cases WHERE ended")
            }
            free = [key for key in dict.fromkeys(keys) if key not in taken]
            if workers > 1:
                most = min(most, max(1, len(free) // (2 * workers)))
            free = free[:most]
            self._db.executemany("INSERT INTO claims VALUES (?, ?, ?)", [(key, *me) for key in free])
        return free

    def close(self) -> None:
        """Close the file; what was committed stays."""
        self._db.close()

    def _prepare(self) -> None:
        """Make the tables. Turning WAL on does not wait for others by itself, so several openers take turns here."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                # tables first: whoever sees another opener's tables sees the number that came with them
                made = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                (kept,) = self._db.execute("PRAGMA user_version").fetchone()
                self._schema = (kept or 1) if made else SCHEMA  # the first schema had no number
                if not made:
                    self._db.executescript(f"BEGIN IMMEDIATE;{TABLES}{LATER}PRAGMA user_version = {SCHEMA};COMMIT;")
                elif ("unedited",) not in made and self._schema == SCHEMA:
                    self._db.executescript(f"BEGIN IMMEDIATE;{LATER}COMMIT;")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be read ({error}). Give another --out.") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it or nothing, and afterwards the store can be used again."""
        try:
            self._still_there()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.path}: cannot be written ({error}). What was finished before is kept; mend this and run again."
            ) from error

    def _still_there(self) -> None:
        """SQLite goes on writing into a deleted file without a word; results would be lost at the end."""
        status = self.path.stat()
        if (status.st_dev, status.st_ino) != self._file:
            raise OSError("another file has taken its place")


def _born(pid: int) -> str:
    """When a process started, where /proc tells: a number that a later process with the same pid does not have."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "dead" if fields[0] in ("Z", "X") else fields[19]


def _alive(pid: int, born: str) -> bool:
    """Whether the process that wrote a claim still runs: not a zombie, and no later process of the same number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's process, but alive
    return _born(pid) == born
