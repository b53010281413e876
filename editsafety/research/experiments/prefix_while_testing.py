"""C-ROME with and without a random editing prefix at test time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from editsafety import measures
from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.editors import Editor
from editsafety.edits.session import EditSession
from editsafety.lab.attempt import compute
from editsafety.lab.bench import Bench
from editsafety.measures import Inputs
from editsafety.research.experiments import FALL, Cell, Context, Result, spell
from editsafety.runs.measurement import Measurement

NAMES = ("efficacy", "generalisation", "locality")


class PrefixAtTest:
    """Rates over single edits, asked bare and behind one of the editing contexts, which is drawn by the request."""

    name: ClassVar[str] = "prefix-while-testing"
    paper: ClassVar[str] = f"{FALL}, tables 4 and 5"
    title: ClassVar[str] = "C-ROME asked bare and behind an editing prefix"

    def __call__(self, context: Context) -> Result:
        """A row per stream and way of asking."""
        bench, editor = context.bench, context.ready("c_rome")
        rows: list[tuple[Cell, ...]] = []
        for stream in ("hard", "normal"):
            requests = context.requests(stream)
            marks: dict[str, dict[str, list[float]]] = {way: {name: [] for name in NAMES} for way in ("bare", "prefix")}
            with context.progress.task(f"c_rome on {stream} cases, bare and behind a prefix", len(requests)) as task:
                for request in requests:
                    for way, found in _asked(bench, editor, request).items():
                        for name in NAMES:
                            marks[way][name] += _marks(found[name])
                    task.step(request.id)
            for way, lists in marks.items():
                rows.append((stream, way, len(requests), *(_rate(lists[name]) for name in NAMES)))
        told = [spell(_cell(row[3])) for row in rows]
        sentence = (
            f"the share of C-ROME's hard edits that say the target is {told[0]} bare and {told[1]} behind a prefix, "
            f"that of its normal ones {told[2]} and {told[3]}"
        )
        published = (
            "efficacy / generalisation / locality of collapse cases, bare: GPT-2 XL 5.19 / 14.29 / 97.40 %, GPT-J "
            "30.59 / 30.77 / 82.35 %, Llama-2-7b 18.65 / 12.70 / 100 %; with a prefix: 100 / 16.88 / 100 %, 100 / "
            "32.94 / 89.41 %, 91.27 / 29.37 / 100 %; normal cases with a prefix: 96.16 / 41.88 / 97.34 %, 99.77 / "
            "50.00 / 95.61 %, 91.95 / 46.73 / 97.56 %"
        )
        headings = ("stream", "asked", "n", *NAMES)
        return Result(self.name, context.handle.name, headings, tuple(rows), sentence, published)


def _asked(bench: Bench, editor: Editor, request: EditRequest) -> Mapping[str, Mapping[str, Measurement]]:
    """The three measurements of one edit, bare and behind its prefix; neighbours against the unedited model's."""
    prefix = bench.inputs((request,)).prefixes[0]
    ways = {"bare": request, "prefix": behind(request, prefix)}
    unedited = {way: _locality(bench, one, {}) for way, one in ways.items()}
    edit = compute(bench.handle, editor, (request,)).edit
    found: dict[str, dict[str, Measurement]] = {}
    with EditSession(bench.handle) as session:
        session.apply(edit)
        for way, one in ways.items():
            inputs = Inputs((one,), prefixes=(prefix,), batch_size=bench.batch_size)
            told = {m.name: m for name in NAMES[:2] for m in measures.load(name)(bench.handle, inputs)}
            name = "efficacy" if way == "bare" else "efficacy_prefixed"
            local = _locality(bench, one, {"locality": unedited[way]})
            found[way] = {"efficacy": told[name], "generalisation": told["generalisation"], "locality": local}
    return found


def behind(request: EditRequest, prefix: str) -> EditRequest:
    """The request with the prefix before every rephrasing and neighbour (its own prompt gets it when asked)."""
    neighbours = tuple(Neighbour(prefix + one.prompt, one.answer) for one in request.neighbours)
    return replace(request, rephrasings=tuple(prefix + text for text in request.rephrasings), neighbours=neighbours)


def _locality(bench: Bench, request: EditRequest, before: Mapping[str, Measurement]) -> Measurement:
    inputs = Inputs((request,), before=before, batch_size=bench.batch_size)
    return measures.load("locality")(bench.handle, inputs)[0]


def _marks(found: Measurement) -> list[float]:
    """A broken model says nothing right; one that has no data for the question does not count."""
    if found.value is None:
        return [0.0] if found.broken else []
    return [found.value]


def _rate(marks: Sequence[float]) -> float | None:
    return math.fsum(marks) / len(marks) if marks else None


def _cell(cell: Cell) -> float | None:
    return None if isinstance(cell, str) else cell


EXPERIMENT = PrefixAtTest()
