"""The process of a lab, seen from inside: it computes what it is asked for, and says what it is doing.

Messages are JSON. It hears first what the run is (`begin`), then one question after another; between a question and
its answer it sends signs of what it does and of its progress.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety.datasets.request import EditRequest
from editsafety.errors import (
    DataError,
    EditorError,
    EditSafetyError,
    ModelError,
    SpoiltProcessError,
    StoreError,
    UsageError,
    sentence_of,
)
from editsafety.lab.watch import Sign
from editsafety.names import label, slug
from editsafety.progress import Progress, Task
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord, Failure
from editsafety.runs.facts import Wanted
from editsafety.runs.folders import STORE
from editsafety.runs.store import Store
from editsafety.supervision.laid_out import from_message

if TYPE_CHECKING:
    from editsafety.lab.lab import Lab

KINDS = {kind.__name__: kind for kind in (UsageError, DataError, ModelError, StoreError, EditorError, EditSafetyError)}


def main() -> None:
    """Entry of the process: numbers of the descriptors to speak through, to live by and to write stacks to."""
    talk, life, stack = map(int, sys.argv[2:5])
    sys.argv[1:] = []
    for descriptor in (talk, life, stack):
        os.set_inheritable(descriptor, False)  # what an editor starts must not keep them open
    faulthandler.enable(stack, all_threads=True)
    faulthandler.register(signal.SIGUSR1, stack, all_threads=True)
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    with suppress(OSError):  # where memory runs out, this is what has to go, not who watches it
        Path("/proc/self/oom_score_adj").write_text("500")
    with Connection(talk) as connection, suppress(EOFError):
        begun = json.loads(connection.recv_bytes())
        _answer_all(connection, begun)


def _end_with_parent(life: int) -> None:
    """The other end is closed when the parent ends, however it does; this group of processes ends with it."""
    os.read(life, 1)
    os.killpg(0, signal.SIGKILL)


class _Signs:
    """What is told to the parent beside answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.last = Sign()

    def tell(self, sign: Sign) -> None:
        self.last = sign
        self.send({"sign": asdict(sign)})

    def send(self, message: Mapping[str, Any]) -> None:
        self._connection.send_bytes(json.dumps(message).encode())


class _ToldProgress(Progress):
    """Progress that the parent shows."""

    def __init__(self, signs: _Signs) -> None:
        super().__init__(sys.stderr, "quiet")
        self._signs = signs

    def say(self, text: str) -> None:
        self._signs.send({"say": text})

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        self._signs.send({"task": [label, total]})
        try:
            yield _ToldTask(total, self._signs)
        finally:
            self._signs.send({"done": label})


class _ToldTask(Task):
    def __init__(self, total: int, signs: _Signs) -> None:
        super().__init__(total)
        self._signs = signs

    def step(self, note: str = "", count: int = 1) -> None:
        super().step(note, count)
        self._signs.send({"step": [note, count]})


def _answer_all(connection: Connection, begun: Mapping[str, Any]) -> None:
    """Answer every question until there are no more."""
    signs = _Signs(connection)
    try:
        lab, cases = _lab(begun, signs)
    except EditSafetyError as error:
        lab, cases = None, {}
        refused = _refusal(error)
    while True:
        question = json.loads(connection.recv_bytes())
        signs.send(refused if lab is None else _answer(lab, cases, question, signs))


def _lab(begun: Mapping[str, Any], signs: _Signs) -> tuple[Lab, dict[str, Case]]:
    """The lab of a run that the parent has laid out, and its cases by id."""
    from editsafety.lab.lab import Lab

    plan = from_message(begun["plan"])
    if plan.digest() != begun["digest"]:
        raise DataError("the editor files of this run have changed since it was begun. Run it again.")
    store = Store(Path(begun["folder"]) / STORE)
    wanted = plan.wanted(Wanted(tuple(begun["wanted"]), tuple(begun["probed"])))
    cases = {case.id: case for case in reversed((*plan.every,))} | {case.id: case for case in reversed(wanted)}
    lab = Lab(
        plan, store, _ToldProgress(signs), workers=begun["workers"], wanted=wanted or None,
        live=[cases[name] for name in begun["live"]], watch=signs.tell,
    )  # fmt: skip
    return lab, cases


def _answer(lab: Lab, cases: Mapping[str, Case], question: Mapping[str, Any], signs: _Signs) -> dict[str, Any]:
    """What a question comes to; an error of ours is an answer, too."""
    try:
        if question["ask"] == "key":
            return {"answer": asdict(lab.key_of(tuple(question["block"])))}
        if question["ask"] == "order":
            lab.same_in_any_order(*question["block"])
            return {"answer": True}
        if question["ask"] == "known":
            return {"answer": lab.knows(question["model"], list(map(EditRequest.from_json, question["requests"])))}
        if question["ask"] == "ready":
            lab.make_ready(tuple(question["block"]))
            return {"answer": True}
        if question["ask"] == "verify":
            return {"answer": lab.verify(question["model"])}
        case = replace(cases[question["case"]], probed=question["probed"])
        if question["ask"] == "refusal":
            return {"answer": lab.refusal(case) or ""}
        beside = question["beside"]
        lab.record(case, None if beside is None else [cases[name] for name in beside])
        return {"answer": True}
    except SpoiltProcessError as error:
        return {"spoilt": str(error)}
    except EditSafetyError as error:
        return _refusal(error)
    except BaseException as error:  # nobody presses Ctrl-C in this process: whatever it is, it is the editor's
        return _lost(lab, cases, error, signs.last)


def _refusal(error: EditSafetyError) -> dict[str, Any]:
    kind = next(kind for kind in type(error).__mro__ if kind.__name__ in KINDS)
    return {"error": kind.__name__, "said": str(error)}


def _lost(lab: Lab, cases: Mapping[str, Case], error: BaseException, sign: Sign) -> dict[str, Any]:
    """What got past every boundary is the end of the case that was run; this process is not trusted any further."""
    failed = Failure("editor", f"{label(sign.editor)} failed: {sentence_of(error)}")
    if sign.key:
        case = cases[sign.case]
        known = lab.store.record(sign.key) or CaseRecord.begun(case, slug(case.model), label(case.editor))
        lab.store.put(sign.key, replace(known, failure=failed, ended="failed"))
        return {"spoilt": failed.message}
    return {"error": "EditorError", "said": failed.message, "spoilt": failed.message}
