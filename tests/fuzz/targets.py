"""What is fuzzed: for each kind of file a whole one, damaged ones, and its reader."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from editsafety.edits.edit import Edit, Replace
from editsafety.shipped import shipped
from tests import tiny
from tests.fuzz import layouts, mutations, readers, stores, tensors
from tests.fuzz.mutations import Whole
from tests.fuzz.readers import DELTA, HPARAMS, PLAN, POLICY, ROWS, STORE

PREPARED = ("alphaedit", "mend", "serac")  # between them they keep every kind of artifact


class Files(dict[str, bytes]):
    """What lies in a folder, by name; shown in few words."""

    def __repr__(self) -> str:
        shown = (f"{name}: {data[:300]!r} ({len(data)} bytes)" for name, data in self.items())
        return f"Files({', '.join(shown)})"


@dataclass(frozen=True)
class Target:
    """A kind of file."""

    name: str
    # Undamaged.
    whole: Callable[[], Files]
    # The damaged ones.
    files: SearchStrategy[Files]
    # Is given the folder in which they lie.
    read: Callable[[Path], None]
    # How many are tried in the test suite.
    examples: int


@cache
def delta() -> Files:
    """A saved edit: a low-rank delta, a replaced parameter, notes."""
    handle = readers.model()
    name = "transformer.h.0.mlp.c_fc.bias"
    deltas = (tiny.low_rank(handle.mlp_out(1)), Replace(name, handle.model.get_parameter(name).detach() + 1))
    edit = Edit("rome", ("a-1",), handle.identity, deltas, notes={"denominator": 0.5, "stopped": True})
    with tempfile.TemporaryDirectory() as folder:
        edit.save(Path(folder) / DELTA)
        return kept(Path(folder), DELTA)


@cache
def prepared(name: str) -> Files:
    """What an editor prepares for the tiny model."""
    with tempfile.TemporaryDirectory() as folder:
        editor = readers.editor_of(name, Path(folder))
        editor.prepare()
        editor.edit([tiny.request()])
        store = Path(folder) / "store"
        return kept(store, *sorted(path.name for path in store.glob("*.safetensors")))


@cache
def run() -> Files:
    """The plan and the store of a small run, made as a user makes one."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", "--model", "pocket-neo", "--editor", "noop", "--limit", "1", "--texts", "3", "--controls", "0"]
        command = [sys.executable, "-m", "editsafety", *words, "--quiet", "--out", folder, "--device", "cpu"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (Path(folder) / "report.json").is_file(), f"no run to damage: {done.stdout}{done.stderr}"
        with contextlib.closing(sqlite3.connect(Path(folder) / STORE)) as store:
            store.execute("PRAGMA journal_mode=DELETE")  # all of it in one file
        return kept(Path(folder), PLAN, STORE)


def kept(folder: Path, *names: str) -> Files:
    """Files of a folder."""
    return Files({name: Whole((folder / name).read_bytes()) for name in names})


def policy() -> Any:
    """The default policy as a document."""
    return yaml.safe_load((shipped("suites") / "policies" / "default.yaml").read_text(encoding="utf-8"))


def one_of(whole: Callable[[], Files], damage: Callable[[bytes], SearchStrategy[bytes]]) -> SearchStrategy[Files]:
    """Several files of which one is damaged; they are made when the first is drawn."""

    def damaged(name: str) -> SearchStrategy[Files]:
        return damage(whole()[name]).map(lambda data: Files({**whole(), name: data}))

    return st.deferred(lambda: st.sampled_from(sorted(whole())).flatmap(damaged))


def of_run(data: bytes) -> SearchStrategy[bytes]:
    """A damaged store, or a damaged plan."""
    document = st.just(data)
    if data.startswith(b"SQLite"):
        return st.one_of(stores.rewritten(data), stores.rewritten(data), mutations.damaged(document))
    return st.one_of(mutations.changed(document.map(json.loads)).map(mutations.written), mutations.damaged(document))


def of_rows(documents: Sequence[Any]) -> SearchStrategy[Files]:
    """Damaged JSON, as a list and as lines."""

    def spelled(rows: Any) -> SearchStrategy[bytes]:
        return st.sampled_from([mutations.written(rows), mutations.lines(rows)])

    whole = st.sampled_from(documents)
    lying = mutations.changed(whole).flatmap(spelled)
    return st.one_of(lying, lying, mutations.damaged(whole.flatmap(spelled))).map(lambda data: Files({ROWS: data}))


def of_yaml(name: str, documents: Sequence[Any]) -> SearchStrategy[Files]:
    """Damaged YAML."""
    whole = st.sampled_from(documents)
    damaged = mutations.damaged(whole.map(as_yaml), (*mutations.YAML, *mutations.BYTES))
    changed = mutations.changed(whole)
    return st.one_of(changed.map(as_yaml), changed.map(mutations.written), damaged).map(
        lambda data: Files({name: data})
    )


def as_yaml(document: Any) -> bytes:
    """A document as YAML."""
    return yaml.safe_dump(document, allow_unicode=False).encode()


def artifacts(name: str) -> Target:
    """The artifacts that an editor prepares."""
    whole = partial(prepared, name)
    return Target(f"artifacts-{name}", whole, one_of(whole, tensors.files), partial(readers.artifacts, name), 10)


def rows(name: str, documents: Sequence[Any], examples: int) -> Target:
    """A data set, whose first document is one that a loader takes."""
    whole = Files({ROWS: mutations.written(documents[0])})
    return Target(name, lambda: whole, of_rows(documents), readers.requests, examples)


def in_yaml(name: str, file: str, documents: Sequence[Any], read: Callable[[Path], None], examples: int) -> Target:
    """A YAML file, whose first document is one that is taken."""
    whole = Files({file: as_yaml(documents[0])})
    return Target(name, lambda: whole, of_yaml(file, documents), read, examples)


TARGETS: tuple[Target, ...] = (
    Target("deltas", delta, one_of(delta, tensors.files), readers.delta, 100),
    *map(artifacts, PREPARED),
    rows("requests", layouts.ROWS, 120),
    rows("texts", layouts.TEXTS, 40),
    in_yaml("policies", POLICY, [policy()], readers.policy, 60),
    in_yaml("hyperparameters", HPARAMS, layouts.HPARAMS, readers.hparams, 40),
    Target("runs", run, one_of(run, of_run), readers.run, 15),
)
