"""Lab: returns the stored records of cases, and computes those that are missing, a block at a time.

A block is the cases of one model and one editor, so that a model is loaded once and an editor made once. Several
processes may share a store: each claims a few cases at a time.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch

from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.errors import (
    EditorError,
    EditSafetyError,
    SpoiltProcessError,
    StoreError,
    UndoError,
    UsageError,
    sentence_of,
)
from editsafety.foreign import contained
from editsafety.lab import single, yardstick
from editsafety.lab.attempt import Made, compute, where_raised
from editsafety.lab.bench import Bench
from editsafety.lab.edit_store import EditStore, edit_key
from editsafety.lab.terms import refusal
from editsafety.lab.tools import Tools
from editsafety.lab.truths import gives_true_answers
from editsafety.lab.walk import walk
from editsafety.lab.watch import Sign, Watch, unwatched
from editsafety.model.handle import ModelHandle
from editsafety.names import label, slug
from editsafety.numbers import times
from editsafety.progress import Progress, Task
from editsafety.runs.case import Block, Case
from editsafety.runs.case_record import CaseRecord, Failure
from editsafety.runs.facts import BlockKey, Drifted, OrderFacts, Problem
from editsafety.runs.plan import RunPlan
from editsafety.runs.store import DEATHS, Store

# Single edits that one of several workers claims at a time; of a large block a 64th of its share; at the end fewer.
CHUNK, SHARE = 4, 64


class Lab:
    """Runs the cases of a plan.

    `workers` share the store and the cores; `handles` are models that are in memory already, by the name that the plan
    calls them; `wanted` are the cases of this session, all single edits and controls by default; `live` are edits that
    will be asked for beside them (`Lab.edit`); `watch` is told what is being done.
    """

    def __init__(
        self,
        plan: RunPlan,
        store: Store,
        progress: Progress,
        *,
        workers: int = 1,
        handles: Mapping[str, ModelHandle] | None = None,
        wanted: Sequence[Case] | None = None,
        live: Sequence[Case] = (),
        watch: Watch = unwatched,
    ) -> None:
        self.plan, self.store, self.progress, self.workers = plan, store, progress, workers
        self.wanted = tuple((*plan.cases, *plan.controls) if wanted is None else wanted)
        self.watch = watch
        self.tools = Tools(plan, store, progress, handles, watch)
        self.keys = self.tools.keys
        self.edits = EditStore(store.path.parent / "edits")
        self._uses = _uses(self.wanted) + _uses(live)
        self._asked = Counter((model, requests) for (model, _), requests in self._uses)
        self._refused: dict[Block, EditSafetyError] = {}
        self._singles: dict[Block, list[Case]] = {}
        self._passed: Counter[Block] = Counter()  # places at which the yardstick might have been read
        for case in self.wanted:
            if not case.is_course:
                self._singles.setdefault(case.block, []).append(case)
        if workers > 1:
            torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // workers)))

    def record(self, case: Case, beside: Sequence[Case] | None = None) -> CaseRecord:
        """The whole record of a case: the stored one, computed with its block, or gone on with where it was left.

        `beside` are the cases that may be computed along with it, those of this session when not given.

        Raises UsageError for a schedule that the editor's traits do not allow (`terms.refusal` says so beforehand), and
        EditSafetyError for what stands in the way of the whole block (no such model, wrong hyperparameters, an editor
        that is not prepared or cannot be made); that is noted for the report, and not tried again.
        """
        if case.is_course and (refused := refusal(case)):
            raise UsageError(refused)  # of this schedule only: other cases of the block can be run
        with self._boundary(case.block):
            while (record := self.store.record(self.keys.of(case))) is None or not record.ended:
                self._work(case, beside)
            return record

    def key_of(self, block: Block) -> BlockKey:
        """What the keys of a block's records share; with a model that may have changed since, it is loaded for that.

        Raises EditSafetyError as `record` does.
        """
        with self._boundary(block):
            return self.keys.shared(block)

    def knows(self, model: str, requests: Sequence[EditRequest]) -> list[bool]:
        """Whether the unedited model gives the true answer of each request. Raises EditSafetyError."""
        return gives_true_answers(self.tools.bench(model).handle, requests, self.plan.settings.batch_size)

    def make_ready(self, block: Block) -> None:
        """Load a model, measure it unedited and prepare an editor, as far as that can be done.

        What stands in the way is left to whoever runs a case of the block, and says so.
        """
        with suppress(Exception), contained(label(block[1])):
            self.tools.ready(*block)

    def verify(self, model: str) -> str:
        """Look whether a model that is in memory is what it was when it was loaded; what was found, empty for nothing.

        What is not is brought back, or let go of where it cannot be: the next case loads it anew.
        """
        bench = self.tools.in_memory(model)
        if bench is None or bench.is_intact():
            return ""
        try:
            bench.repair()
        except UndoError as error:
            self.tools.drop()
            return f"{slug(model)} had changed while nothing was run on it, and is loaded anew: {error}"
        return f"{slug(model)} had changed while nothing was run on it, and was brought back"

    def refusal(self, case: Case) -> str | None:
        """Why an editor cannot go along a case's schedule: its traits. None when it can."""
        return refusal(case)

    def edit(self, block: Block, requests: tuple[EditRequest, ...]) -> Made:
        """An edit of the unedited model: from the store of edits, or computed, and kept there if it is needed again."""
        editor = self.tools.ready(*block)
        key = edit_key(self.keys.shared(block).single, requests)
        made = self.edits.get(key, requests, editor.sidecars)
        if made is None:
            bench = self.tools.bench(block[0])
            # Where another editor of this model is asked for the same, it finds what both need.
            shared = self.edits.folder if self._asked[block[0], _ids(requests)] > 1 else None
            with bench.handle.engine.sharing(shared):
                made = compute(bench.handle, editor, requests, baseline=bench.baseline, prove="in doubt")
            if self._uses[block, _ids(requests)] > 1:
                self.edits.put(key, made)
        return made

    def same_in_any_order(self, model: str, editor: str) -> OrderFacts:
        """Whether the last and the first case, computed alone by a new editor in reverse order, give the same bytes."""
        cases = [case for case in self.plan.cases if case.block == (model, editor)]
        with self._boundary((model, editor)):
            shared = self.keys.shared((model, editor))
        facts = self.store.fact(OrderFacts, f"{shared.model}:{shared.editor}")
        if facts is None or facts.key != shared.single:
            records = [(case, self.record(case)) for case in dict.fromkeys((cases[-1], cases[0]))]
            bench = self.tools.bench(model)
            edits = [(case, record.step.edit_id) for case, record in records if record.step.edit_id is not None]
            different = [case.id for case, edit_id in edits if self._again(bench, editor, case).edit.id != edit_id]
            facts = OrderFacts(shared.model, shared.editor, len(edits), tuple(different), shared.single)
            self.store.note(facts)
            self.watch(Sign())
        return facts

    def _again(self, bench: Bench, editor: str, case: Case) -> Made:
        """A case's edit, computed by an editor that has not edited anything yet."""
        self.watch(Sign.running(case))
        fresh = self.tools.new_editor(bench.handle, editor)
        with bench.handle.engine.afresh():
            return compute(bench.handle, fresh, case.requests, baseline=bench.baseline)

    @contextmanager
    def _boundary(self, block: Block) -> Iterator[None]:
        """What stands in the way of a whole block is noted, and not tried again."""
        if block in self._refused:
            raise self._refused[block]
        try:
            with contained(label(block[1])):
                yield
        except (StoreError, SpoiltProcessError):
            raise  # of this process, not of the block
        except UndoError:
            self.tools.drop()
            raise
        except Exception as error:  # the boundary: an editor is somebody else's code and may raise anything
            refused = error if isinstance(error, EditSafetyError) else EditorError(_unrunnable(block, error))
            self._refused[block] = refused
            self.store.note(Problem(slug(block[0]), label(block[1]), str(refused)))
            if refused is error:
                raise
            raise refused from error

    def _work(self, case: Case, beside: Sequence[Case] | None) -> None:
        """Run some of what is left of a case's block: single edits a few at a time, a course alone."""
        block = {self.keys.of(one): one for one in (case, *self._beside(case, beside))}
        alone = case.is_course or self.workers > 1
        few = 1 if case.is_course else max(CHUNK, len(block) // (SHARE * self.workers))
        claimed = self.store.claim(list(block), few if alone else len(block), workers=self.workers)
        if not claimed:
            time.sleep(0.05)  # other processes are at all of them
            return
        try:
            self._compute({key: block[key] for key in claimed})
        finally:
            self.store.claim([], 0)  # gives back what was claimed and not finished, so that nobody waits for it

    def _beside(self, case: Case, beside: Sequence[Case] | None) -> Iterator[Case]:
        """Cases that belong with this one: its block's single edits, or what can be walked while others walk it."""
        if not case.is_course and beside is None:
            yield from self._singles.get(case.block, ())
            return
        wanted = self.wanted if beside is None else beside
        alike = [one for one in wanted if one.block == case.block and one.is_course == case.is_course]
        if not case.is_course:
            yield from alike
        elif self.workers > 1:
            yield from (one for one in alike if not refusal(one) and not self._ended(one))

    def _ended(self, case: Case) -> bool:
        record = self.store.record(self.keys.of(case))
        return record is not None and bool(record.ended)

    def _compute(self, cases: Mapping[str, Case]) -> None:
        first = next(iter(cases.values()))
        bench, editor = self.tools.bench(first.model), self.tools.ready(first.model, first.editor)
        bench.baseline = bench.baseline and bench.baseline.renewed()
        title = f"{label(first.editor)} on {slug(first.model)}"
        if first.is_course:
            title += f", {first.stream} {first.schedule.kind}"
        size = len(cases)
        if first.is_course:  # what is still to be written: what an earlier process wrote says nothing of the rate
            portions = first.schedule.portions(len(first.requests))
            size = sum(len(one) for one in portions) - _written(self.store.record(next(iter(cases))))
        with self.progress.task(title, size) as task, bench.handle.engine.in_a_row():
            for key, case in cases.items():
                self._read_yardstick(case.block)
                self.watch(Sign.running(case, key))
                deaths = self.store.start(key)
                try:
                    if deaths >= DEATHS:
                        record = self._given_up(key, case, deaths)
                    else:
                        record = self._run(bench, editor, case, key, task)
                except BaseException:
                    self.store.leave(key)
                    raise
                self.store.put(key, record)
                self.watch(Sign())
                if not case.is_course:
                    task.step(case.id)
                if bench.broken or (record.failure is not None and record.failure.kind == "oom"):
                    self.watch(Sign("spoilt"))
                if bench.broken:
                    self.tools.drop()
                    if bench.spoilt:
                        self.tools.spoilt = f"{bench.spoilt}. Run the same command again: what was finished is kept."
                    if record.failure is not None and record.failure.kind == "device":
                        self.tools.spoilt = f"{bench.broken}. Run the same command again: what was finished is kept."
                    return
        self._read_yardstick(first.block)
        if not bench.is_intact():
            self.store.note(Drifted(bench.handle.name, label(first.editor)))
            bench.repair()

    def _read_yardstick(self, block: Block) -> None:
        """Time a forward pass beside an edit, of a large block beside one edit in so many."""
        if yardstick.is_due(self._passed[block], len(self._singles.get(block, ()))):
            self.tools.read_yardstick(*block)
        self._passed[block] += 1

    def _run(self, bench: Bench, editor: Editor, case: Case, key: str, task: Task) -> CaseRecord:
        terms = self.keys.terms(case.model)

        def make(requests: tuple[EditRequest, ...]) -> Made:
            return self.edit(case.block, requests)

        if not case.is_course:
            return single.run(bench, editor.name, case, make, terms.probes if case.probed else ())

        known = self.store.record(key)
        begun, last = _written(known), ""

        def commit(record: CaseRecord) -> None:
            nonlocal last
            self.store.put(key, record)
            self.watch(Sign.running(case, key))
            last = f"perplexity {times(record.ratios[-1])}"
            _tell(task, _written(record) - begun, last)

        folder = self.store.path.parent
        checkpoints = folder / "checkpoints" / f"{key[:16]}.safetensors"
        delta = folder / "breaking" / f"{case.id}-{key[:8]}.safetensors"
        record = walk(
            bench, editor, case, terms, make, known=known, checkpoints=checkpoints, delta=delta, on_step=commit,
            on_edit=lambda written: _tell(task, written - begun, last),
        )  # fmt: skip
        checkpoints.unlink(missing_ok=True)
        return record

    def _given_up(self, key: str, case: Case, deaths: int) -> CaseRecord:
        """The record of a case that is not tried again, because the process that ran it died each time."""
        known = self.store.record(key) or CaseRecord.begun(case, slug(case.model), label(case.editor))
        at = f" after edit {known.steps[-1].edits}" if known.steps else ""
        said = f"the process that ran this case died {deaths} times{at} (killed, crashed or out of memory)"
        return replace(known, failure=Failure("died", f"{said}; not tried again"), ended="failed")


def _uses(cases: Iterable[Case]) -> Counter[tuple[Block, tuple[str, ...]]]:
    """How often an edit of the unedited model may be asked for: by its cases, and once more by bisection."""
    uses: Counter[tuple[Block, tuple[str, ...]]] = Counter()
    for case in {(case.id, case.control): case for case in cases}.values():
        count = len(case.requests)
        alone = case.schedule.portions(count) if case.schedule.cumulative else ()
        for portion in (*case.schedule.on_unedited(count), *alone):
            uses[case.block, _ids(case.requests[portion.start : portion.stop])] += 1
    return uses


def _ids(requests: Iterable[EditRequest]) -> tuple[str, ...]:
    return tuple(request.digest() for request in requests)


def _written(record: CaseRecord | None) -> int:
    """How many requests of a course are written by now."""
    return sum(len(step.block) for step in record.steps) if record is not None else 0


def _tell(task: Task, written: int, note: str) -> None:
    """Bring the progress of a course to so many requests."""
    if (more := min(written, task.total) - task.done) > 0:
        task.step(note, more)


def _unrunnable(block: Block, error: Exception) -> str:
    where = f" ({place})" if (place := where_raised(error)) else ""
    return f"{label(block[1])} on {slug(block[0])} cannot be run: {sentence_of(error)}{where}"
