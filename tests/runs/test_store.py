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
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.schedule import Schedule
from editsafety.runs.store import Store
from tests import builders

ROOT = Path(__file__).parent.parent
RECORD = builders.record("rome", "hard", 0)
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
    store.finish("a", RECORD)
    store.close()
    again = Store(path)
    assert again.record("a").to_text() == RECORD.to_text()
    assert again.record("b") is None
    assert again.done(["a", "b", "c"]) == {"a"}
    assert again.claim(["a", "b", "c"], 9) == ["b", "c"]


def test_a_claim_takes_what_is_free_in_order_and_no_more_than_asked(path):
    store = Store(path)
    store.finish("b", RECORD)
    assert store.claim(["c", "b", "a", "c"], 1) == ["c"]
    assert store.claim(["c", "b", "a"], 9) == ["c", "a"]
    assert store.claim([], 9) == []


def test_facts_are_kept_sorted_and_found_by_the_start_of_their_name(path):
    store = Store(path)
    store.put("model:b", {"x": 1})
    store.put("model:a", [1, None])
    store.put_new("model:a", 3)
    store.put("modem", True)
    assert store.facts("model:") == {"a": [1, None], "b": {"x": 1}}
    assert store.get("nothing") is None
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put("bad", float("nan"))
    assert store.claim(["a"], 1) == ["a"]


def test_a_killed_process_leaves_its_finished_cases_and_frees_its_claims(path):
    body = """
        claimed = store.claim(keys, 10)
        for i, key in enumerate(claimed[:4]):
            store.finish(key, builders.record("rome", "hard", i))
        store._db.execute("BEGIN IMMEDIATE")  # killed in the middle of a fifth
        store._db.execute("INSERT INTO cases VALUES ('k004', 'x', '{}')")
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
    assert store.done(keys) == set(keys[:4])
    assert store.record("k003").case == "pocket-neo-rome-hardcf-0003"


def test_processes_at_the_same_time_never_get_the_same_key(path):
    body = """
        mine = []
        while claimed := store.claim(keys, 4):
            for key in claimed:
                time.sleep(0.001)
                store.finish(key, builders.record("rome", "hard", 0))
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
    store.put("schema", 99)
    store.close()
    with pytest.raises(StoreError, match="a store of schema 99; this version reads 1"):
        Store(path)


def test_a_case_that_cannot_be_read_is_named(path):
    store = Store(path)
    store.finish("a", RECORD)
    store._db.execute("UPDATE cases SET record = substr(record, 1, 100)")
    with pytest.raises(StoreError, match="case pocket-neo-rome-hardcf-0000 cannot be read"):
        store.record("a")


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
        if query.startswith(("INSERT", "DELETE", "COMMIT", "BEGIN")):
            self.writes += 1
            if self.writes == self.when:
                raise sqlite3.OperationalError("database or disk is full")
        return self.db.execute(query, *more)

    def __getattr__(self, name):
        return getattr(self.db, name)


@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_a_full_disk_is_told_loses_nothing_and_the_store_goes_on_when_there_is_room_again(path, when):
    store = Store(path)
    store.finish("a", RECORD)
    whole = store._db
    store._db = Failing(whole, when)
    with pytest.raises(
        StoreError, match=r"cannot be written \(database or disk is full\). What was finished before is kept"
    ):
        store.finish("b", RECORD)
    assert store.done(["a", "b"]) == {"a"}
    store._db = whole
    store.finish("b", RECORD)
    assert Store(path).done(["a", "b"]) == {"a", "b"}


def test_a_really_full_database_is_told_too(path):
    store = Store(path)
    store.finish("a", RECORD)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    long = builders.record("rome", "hard", 1, answer="long " * 100_000)
    with pytest.raises(StoreError, match="full"):
        store.finish("b", long)
    assert store.record("a") is not None


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_deleted_during_the_run_is_noticed(path, replaced):
    store = Store(path)
    path.rename(path.with_suffix(".moved"))
    if replaced:
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"No such file|another file has taken its place"):
        store.finish("a", RECORD)


def test_opening_waits_for_another_opener_and_gives_up_with_a_sentence(path, monkeypatch):
    Store(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("INSERT INTO facts VALUES ('x', '1')")
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with pytest.raises(StoreError, match="locked"):
        Store(path)
    other.execute("ROLLBACK")
    other.close()
    Store(path).close()


def test_paths_with_spaces_and_other_letters_work(tmp_path):
    store = Store(tmp_path / "a run — ☃ 漢字" / "store.sqlite")
    store.finish("a", RECORD)
    assert store.done(["a"]) == {"a"}


def test_a_course_is_kept_after_every_step_and_its_claim_is_given_up_at_its_end(path):
    store = Store(path)
    assert store.claim(["c"], 1) == ["c"]
    assert store.course("c") is None
    half = CourseRecord("b-course", "m", "e", "hard", Schedule("sequential"), 9)
    store.put_course("c", half)
    again = Store(path)
    assert again.course("c") == half
    other = start(path, "print(store.claim(['c'], 1))")
    assert other.communicate()[0].strip() == "[]"  # still ours
    done = replace(half, ended="complete", remarks=("begun again",))
    store.put_course("c", done)
    store.put_course("d", replace(half, course="a-course"))
    assert again.course("c") == done
    assert again.course_records() == [replace(half, course="a-course"), done]
    other = start(path, "print(store.claim(['c'], 1))")
    assert other.communicate()[0].strip() == "['c']"


def test_a_course_that_got_further_was_started_once_and_one_that_ended_never(path):
    store = Store(path)
    half = CourseRecord("course", "m", "e", "hard", Schedule("sequential"), 9)
    assert [store.start("c") for _ in range(3)] == [0, 1, 2]
    store.put_course("c", half)
    assert store.start("c") == 1
    store.put_course("c", replace(half, ended="failed"))
    assert store.start("c") == 0


def test_a_store_from_before_there_were_courses_takes_them(path):
    store = Store(path)
    store.finish("a", RECORD)
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE courses")
    db.close()
    old = Store(path)
    assert old.record("a").to_text() == RECORD.to_text()
    assert old.course("c") is None
    old.put_course("c", CourseRecord("course", "m", "e", "hard", Schedule("sequential"), 9))
    assert old.course("c").planned == 9


def test_a_course_that_cannot_be_read_is_named(path):
    store = Store(path)
    store.put_course("c", CourseRecord("course-x", "m", "e", "hard", Schedule("sequential"), 9))
    store._db.execute("UPDATE courses SET record = '{}'")
    with pytest.raises(StoreError, match="course course-x cannot be read"):
        store.course("c")
