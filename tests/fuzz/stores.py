"""Damaged stores: SQLite files in which a row says something else than was written."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.fuzz import mutations

DOCUMENTS = {"facts": "value", "cases": "record"}  # the column that holds JSON, by table
STATEMENTS = (
    "DROP TABLE facts", "DROP TABLE cases", "DELETE FROM facts", "DELETE FROM cases", "PRAGMA user_version = 99",
    "PRAGMA user_version = 0", "UPDATE cases SET ended = 0", "UPDATE cases SET ended = 'x'", "UPDATE cases SET id = ''",
    "UPDATE cases SET record = x'ff00'", "UPDATE facts SET value = x'ff00'",
    "UPDATE OR REPLACE facts SET kind = 'asked'",
    "UPDATE facts SET name = ''||rowid", "ALTER TABLE cases RENAME COLUMN record TO text", "UPDATE facts SET value = 7",
    "UPDATE OR REPLACE cases SET key = id", "CREATE TABLE more (x)",
)  # fmt: skip


@st.composite
def rewritten(draw: DrawFn, whole: bytes) -> bytes:
    """A store with one other row, or after a statement that nobody meant."""
    store = sqlite3.connect(":memory:")
    store.deserialize(whole)
    if draw(st.integers(0, 4)) == 0:
        store.execute(draw(st.sampled_from(STATEMENTS)))
    else:
        table = draw(st.sampled_from(sorted(DOCUMENTS)))
        rows = store.execute(f"SELECT rowid, {DOCUMENTS[table]} FROM {table} ORDER BY rowid").fetchall()
        place, text = draw(st.sampled_from(rows))
        value: Any = mutations.written(
            draw(mutations.changed(st.just(mutations.Whole(text.encode())).map(json.loads)))
        ).decode()
        if draw(st.integers(0, 4)) == 0:
            value = draw(mutations.damaged(st.just(mutations.Whole(text.encode()))))
            value = value.decode("utf-8", "replace") if draw(st.booleans()) else value
        store.execute(f"UPDATE {table} SET {DOCUMENTS[table]} = ? WHERE rowid = ?", (value, place))
    store.commit()
    return store.serialize()
