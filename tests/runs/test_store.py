"""Store: what was finished is kept, whatever happens to the process, the disk or the file."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.errors import StoreError
from editsafety.runs import store as module
from editsafety.runs.case_record import SCHEMA
from editsafety.runs.store import Store
from tests import builders

ROOT = Path(__file__).parent.parent
RECORD = builders.record("rome", "hard", 0)
HALF = builders.course(builders.step(10), ended="")  # a course that is under way
HEAD = """
    import os, sys, time
    from pathlib import Path
    from editsafety.runs.store import Store
    from tests import builders
    store = Store(Path(sys.argv[1]))
    keys = [f"k{i:03d}" for i in range(60)]
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "store.sqlite"


def start(path, body, *more):
    """A process that runs `body` with an open store."""
    code = textwrap.dedent(HEAD) + textwrap.dedent(body)
    command = [sys.executable, "-c", code, str(path), *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def test_a_finished_case_is_found_again_by_its_key_after_opening_anew(path):
    store = Store(path)
    assert store.claim(["a", "b"], 2) == ["a", "b"]
    store.put("a", RECORD)
    store.close()
    again = Store(path)
    assert again.record("a").to_text() == RECORD.to_text()
    assert again.record("b") is None
    assert again.count() == 1
    assert again.claim(["a", "b", "c"], 9) == ["b", "c"]


def test_a_claim_takes_what_is_free_in_order_and_no_more_than_asked(path):
    store = Store(path)
    store.put("b", RECORD)
    assert store.claim(["c", "b", "a", "c"], 1) == ["c"]
    assert store.claim(["c", "b", "a"], 9) == ["c", "a"]
    assert store.claim([], 9) == []


def test_several_workers_claim_fewer_at_a_time_towards_the_end(path):
    """Of ten keys two workers take two and two, and the last six one by one."""
    store, keys = Store(path), [f"k{i}" for i in range(10)]
    claimed = []
    while mine := store.claim(keys, 4, workers=2):
        claimed.append(mine)
        for key in mine:
            store.put(key, RECORD)
    assert [len(mine) for mine in claimed] == [2, 2, *[1] * 6]
    assert [key for mine in claimed for key in mine] == keys


def test_a_killed_process_leaves_its_finished_cases_and_frees_its_claims(path):
    body = """
        claimed = store.claim(keys, 10)
        for i, key in enumerate(claimed[:4]):
            store.put(key, builders.record("rome", "hard", i))
        store._db.execute("BEGIN IMMEDIATE")  # killed in the middle of a fifth
        store._db.execute("INSERT INTO cases VALUES ('k004', 'x', 1, '{}')")
        print("ready", flush=True)
        time.sleep(60)
    """
    process = start(path, body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    store = Store(path)  # not reaped yet: a zombie claims nothing either
    keys = [f"k{i:03d}" for i in range(60)]
    assert store.claim(keys, 10) == keys[4:14]
    process.wait()
    process.stdout.close()
    assert [key for key in keys if store.record(key)] == keys[:4]
    assert store.record("k003").case == "pocket-neo-rome-hardcf-0003"


def test_processes_at_the_same_time_never_get_the_same_key(path):
    body = """
        mine = []
        while claimed := store.claim(keys, 4):
            for key in claimed:
                time.sleep(0.001)
                store.put(key, builders.record("rome", "hard", 0))
                mine.append(key)
        print(" ".join(mine))
    """
    processes = [start(path, body) for _ in range(3)]  # the store is not there yet: they also make it together
    taken = [process.communicate(timeout=50)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    every = [key for keys in taken for key in keys]
    assert sorted(every) == [f"k{i:03d}" for i in range(60)]


def test_what_a_living_process_claimed_is_not_given_away(path):
    process = start(path, 'store.claim(keys[:3], 3); print("ready", flush=True); sys.stdin.read()')
    assert process.stdout.readline() == "ready\n"
    assert Store(path).claim([f"k{i:03d}" for i in range(5)], 9) == ["k003", "k004"]
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_claim_is_void_when_a_later_process_has_the_same_number(path):
    store = Store(path)
    store._db.execute("INSERT INTO claims VALUES ('a', ?, 'another start')", (os.getppid(),))
    assert store.claim(["a"], 1) == ["a"]


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 50, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot be used as a store .*Move it away, or give another --out"):
        Store(path)
    assert path.read_bytes() == content


def test_a_store_of_another_schema_is_refused(path):
    store = Store(path)
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreError, match=f"a store of schema 99; this version reads {SCHEMA}. Give another --out"):
        Store(path)


def test_a_store_of_the_first_schema_which_had_no_number_is_told_so_and_keeps_what_it_has(path):
    path.parent.mkdir()
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    old.execute("INSERT INTO facts VALUES ('schema', '1')")
    with pytest.raises(StoreError, match=f"a store of schema 1; this version reads {SCHEMA}"):
        Store(path)
    assert old.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("facts",)]
    assert old.execute("SELECT * FROM facts").fetchall() == [("schema", "1")]
    old.close()


def test_a_case_that_cannot_be_read_is_named(path):
    store = Store(path)
    store.put("a", RECORD)
    store._db.execute("UPDATE cases SET record = substr(record, 1, 100)")
    with pytest.raises(StoreError, match="case pocket-neo-rome-hardcf-0000 cannot be read"):
        store.record("a")
    with pytest.raises(StoreError, match="case pocket-neo-rome-hardcf-0000 cannot be read"):
        store.records()


def test_a_place_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be used as a store .*file'"):
        Store(tmp_path / "file" / "store.sqlite")
    with pytest.raises(StoreError, match="cannot be used as a store"):
        Store(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(path):
    path.parent.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot be used as a store"):
        Store(path)


class Failing:
    """A connection whose n-th write fails as on a full disk."""

    def __init__(self, db, when):
        self.db, self.when, self.writes = db, when, 0

    def execute(self, query, *more):
        if query.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT", "BEGIN")):
            self.writes += 1
            if self.writes == self.when:
                raise sqlite3.OperationalError("database or disk is full")
        return self.db.execute(query, *more)

    def __getattr__(self, name):
        return getattr(self.db, name)


@pytest.mark.parametrize("when", [1, 2, 3, 4, 5, 6])
def test_a_full_disk_is_told_loses_nothing_and_the_store_goes_on_when_there_is_room_again(path, when):
    store = Store(path)
    store.put("a", RECORD)
    whole = store._db
    store._db = Failing(whole, when)
    with pytest.raises(
        StoreError, match=r"cannot be written \(database or disk is full\). What was finished before is kept"
    ):
        store.put("b", RECORD)
    assert (store.count(), store.record("b")) == (1, None)
    store._db = whole
    store.put("b", RECORD)
    assert (Store(path).count(), Store(path).record("b").case) == (2, RECORD.case)


def test_a_really_full_database_is_told_too(path):
    store = Store(path)
    store.put("a", RECORD)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    long = builders.record("rome", "hard", 1, answer="long " * 100_000)
    with pytest.raises(StoreError, match="full"):
        store.put("b", long)
    assert store.record("a") is not None


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_deleted_during_the_run_is_noticed(path, replaced):
    store = Store(path)
    path.rename(path.with_suffix(".moved"))
    if replaced:
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"No such file|another file has taken its place"):
        store.put("a", RECORD)


def test_opening_waits_for_who_makes_the_store_and_gives_up_with_a_sentence(path, monkeypatch):
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE facts (x TEXT)")
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with pytest.raises(StoreError, match="locked"):
        Store(path)
    other.execute("ROLLBACK")
    other.close()
    Store(path).close()


def test_a_store_that_is_being_written_can_be_read_and_writing_to_it_gives_up_with_a_sentence(path, monkeypatch):
    Store(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("INSERT INTO facts VALUES ('ended', '', '{}')")
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    store = Store(path)
    assert store.count() == 0
    with pytest.raises(StoreError, match=r"cannot be written \(database is locked\)"):
        store.put("a", RECORD)
    other.execute("ROLLBACK")
    other.close()
    store.put("a", RECORD)


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_store_that_another_process_makes_meanwhile_is_not_taken_for_an_earlier_one(path, monkeypatch, when):
    connect = sqlite3.connect

    class Slow(sqlite3.Connection):
        """Another process makes the store just before the n-th look at what is there."""

        looks = 0

        def execute(self, query, *more):
            if "sqlite_master" in query or query == "PRAGMA user_version":
                self.looks += 1
            if self.looks == when:
                self.looks += 99
                monkeypatch.setattr(module.sqlite3, "connect", connect)
                Store(path).close()
            return super().execute(query, *more)

        def executescript(self, script):
            if when == 3:
                monkeypatch.setattr(module.sqlite3, "connect", connect)
                Store(path).close()
            return super().executescript(script)

    monkeypatch.setattr(module.sqlite3, "connect", lambda *given, **more: connect(*given, factory=Slow, **more))
    store = Store(path)
    store.put("a", RECORD)
    assert store.count() == 1


def test_paths_with_spaces_and_other_letters_work(tmp_path):
    store = Store(tmp_path / "a run — ☃ 漢字" / "store.sqlite")
    store.put("a", RECORD)
    assert store.record("a").case == RECORD.case


def test_a_course_is_kept_after_every_step_and_its_claim_is_given_up_at_its_end(path):
    store = Store(path)
    assert store.claim(["c"], 1) == ["c"]
    assert store.record("c") is None
    store.put("c", HALF)
    again = Store(path)
    half = again.record("c")
    assert (half.to_text(), half.ended, again.count()) == (HALF.to_text(), "", 0)
    other = start(path, "print(store.claim(['c'], 1))")
    assert other.communicate()[0].strip() == "[]"  # still ours
    done = replace(HALF, ended="complete", remarks=("begun again",))
    store.put("c", done)
    assert again.record("c").to_text() == done.to_text()
    assert store._db.execute("SELECT * FROM claims").fetchall() == []
    other = start(path, "print(store.claim(['c'], 1))")
    assert other.communicate()[0].strip() == "[]"  # there is nothing left to do


def test_a_course_that_was_left_under_way_can_be_claimed_again_and_one_that_ended_cannot(path):
    store = Store(path)
    store.put("half", HALF)
    store.put("whole", replace(HALF, ended="collapsed"))
    assert Store(path).claim(["half", "whole"], 9) == ["half"]


def test_records_come_by_id_whether_they_ended_or_not(path):
    store = Store(path)
    store.put("k1", HALF)
    store.put("k2", RECORD)
    store.put("k0", replace(HALF, case="a-course", ended="complete"))
    assert [record.case for record in store.records()] == ["a-course", HALF.case, RECORD.case]
    assert store.count() == 2


def test_a_case_that_got_further_was_started_once_and_one_that_ended_or_was_left_never(path):
    store = Store(path)
    assert [store.start("c") for _ in range(3)] == [0, 1, 2]
    store.put("c", HALF)
    assert store.start("c") == 1
    store.put("c", replace(HALF, ended="failed"))
    assert store.start("c") == 0
    store.leave("c")
    assert store.start("c") == 0
