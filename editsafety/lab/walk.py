"""Walk: one editor goes along a course of requests on one model, which is measured at every step.

Edits are made apart (single, batch: each on the unedited model, restored afterwards) or on top of each other
(sequential, batch-sequential: each on the model as the earlier ones left it, with what the last one carries). What is
measured at a step is in `steps`, `drift` and the probes that are asked for.

Where the model turns out to be broken for the first time, the edit that broke it is looked for between the last step
and this one (see `bisection`), from the edits themselves: none is computed again. Perplexity can fall again after a
collapse, so what is judged over a course is its running maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession, Mark
from editsafety.errors import EditSafetyError, NotPreparedError, StoreError, UndoError, UsageError, told
from editsafety.lab import walk_checkpoint, walk_steps
from editsafety.lab.trial import Bench, compute, failure_of
from editsafety.lab.walk_bisection import crossing
from editsafety.lab.walk_drift import Drift
from editsafety.measures import Probe
from editsafety.names import slug
from editsafety.runs.case_record import Cost
from editsafety.runs.course_record import Breaking, CourseRecord, Step, plain_notes
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Course, Schedule

LIMIT = 2.0  # the default policy's: past this multiple of its unedited perplexity a model is broken


def why_not(name: str, traits: Traits, schedule: Schedule, requests: int) -> str:
    """Why an editor of these traits cannot go along a schedule with so many requests; "" when it can."""
    sizes = [len(portion) for portion in schedule.portions(requests)]
    if max(sizes, default=0) > 1 and not traits.batch:
        return f"{name} edits one fact at a time; a batch of {max(sizes)} cannot be given to it."
    if schedule.cumulative and len(sizes) > 1 and not traits.sequential:
        return f"{name} cannot be applied on top of itself; give at most {sizes[0]} request(s)."
    return ""


def walk(
    bench: Bench,
    editor: Editor,
    course: Course,
    *,
    known: CourseRecord | None = None,
    checkpoints: Path | None = None,
    delta: Path | None = None,
    limit: float = LIMIT,
    stop: bool = True,
    probes: Sequence[Probe] = (),
    on_step: Callable[[CourseRecord], None] = lambda record: None,
) -> CourseRecord:
    """Walk a course to its end, or go on where it was left; the model is afterwards what it was.

    `known` is its record so far. `checkpoints` is the file that holds the edited model of the last step (schedules on
    top of each other go on from there; what follows is bit for bit what an uninterrupted walk gives), `delta` the file
    that the edit which breaks the model is saved to. Past `limit` times its unedited perplexity the model is broken,
    and likewise where that is no number; with `stop` the course then ends (but for single edits, which know nothing of
    each other). `on_step` is given the record after every step and has to commit it. In memory are, beside the edited
    weights, those of the last step and the edits since.

    What an editor does wrong is the record's `failure`; the steps before it stay. Raises UsageError when the editor's
    traits do not allow the schedule or the unedited model has no perplexity; NotPreparedError; StoreError; UndoError
    when the model cannot be brought back. Ctrl-C passes through after what was committed.
    """
    requests = len(course.requests)
    if refused := why_not(editor.name, editor.traits, course.schedule, requests):
        raise UsageError(refused)
    if not requests:
        raise UsageError(f"{course.id}: there is no request to edit.")
    if bench.base["me_ppl"].value is None:
        raise UsageError(f"{slug(bench.handle.spec.name)} has no finite perplexity before any edit.")
    if known is not None and known.ended:
        return known
    walker = _Walker(bench, editor, course, checkpoints, delta, limit, stop, probes, on_step, _begun(course, editor))
    walker.record = known or replace(walker.record, before=walk_steps.before(bench, probes))
    try:
        walker.on_top() if course.schedule.cumulative else walker.apart()
    except (NotPreparedError, StoreError):
        raise
    except (Exception, SystemExit) as error:  # the boundary: an editor is somebody else's code, anything may come
        failure = failure_of(bench, editor.name, error)
        walker.record = replace(walker.record, failure=failure, ended="failed")
    return walker.record


@dataclass(frozen=True, eq=False)
class _Made:
    """An edit since the last step, without what it carries."""

    edit: Edit
    requests: tuple[EditRequest, ...]
    cost: Cost


@dataclass
class _Walker:
    """A walk under way; `record` is what is known by now."""

    bench: Bench
    editor: Editor
    course: Course
    checkpoint: Path | None
    delta: Path | None
    limit: float
    stop: bool
    probes: Sequence[Probe]
    on_step: Callable[[CourseRecord], None]
    record: CourseRecord
    drift: Drift = field(default_factory=Drift)

    def apart(self) -> None:
        """Each edit on the unedited model."""
        portions = list(self.course.schedule.portions(len(self.course.requests)))
        for number, portion in enumerate(portions[len(self.record.steps) :], len(self.record.steps) + 1):
            made, _ = self._made(self.course.requests[portion.start : portion.stop], None)
            with EditSession(self.bench.handle) as session:
                unedited = session.mark()
                session.apply(made.edit)
                step = self._step(session, unedited, made.requests, [made])
            breaking = None
            if self._breaks(step):
                broken = self._ratio(step.found)
                breaking = self._breaking(made, len(made.requests), broken, before=1.0, alone=broken)
            over = breaking is not None and self.stop and self.course.schedule.kind != "single"
            self._commit(step, breaking, "collapsed" if over else "complete" if number == len(portions) else "")
            if over:
                return

    def on_top(self) -> None:
        """Every edit on top of the earlier ones."""
        schedule, requests = self.course.schedule, self.course.requests
        with EditSession(self.bench.handle) as session:
            unedited = session.mark()
            carry, last = self._resumed(session)
            good, block = session.mark(), list[_Made]()
            for portion in schedule.portions(len(requests)):
                if portion.start < last:
                    continue
                made, carry = self._made(requests[portion.start : portion.stop], carry)
                session.apply(made.edit)
                block.append(made)
                if not schedule.is_measured(portion.stop, last, len(requests)):
                    continue
                step = self._step(session, unedited, requests[: portion.stop], block)
                breaking = self._found_out(session, unedited, good, block, step) if self._breaks(step) else None
                over = self.stop and not self._ratio(step.found) <= self.limit
                self._commit(step, breaking, "collapsed" if over else "complete" if step.edits == len(requests) else "")
                if self.record.ended:
                    return
                good, block, last = session.mark(), [], portion.stop
                self._keep(session, carry)

    def _made(
        self, requests: tuple[EditRequest, ...], carry: Mapping[str, Tensor] | None
    ) -> tuple[_Made, Mapping[str, Tensor] | None]:
        """An edit of the requests, and what it carries."""
        edit, cost, leftovers = compute(self.bench.handle, self.editor, requests, carry)
        if leftovers:
            said = f"{self.editor.name} left something behind: {'; '.join(leftovers)}; it was put back"
            self.record = self.record.remarked(said)
        # As it would come from a file: products round by the layout of what they multiply.
        kept = None if edit.carry is None else {n: t.detach().contiguous() for n, t in edit.carry.items()}
        return _Made(replace(edit, carry=None), requests, cost), kept

    def _step(
        self, session: EditSession, unedited: Mark, inside: Sequence[EditRequest], block: Sequence[_Made]
    ) -> Step:
        """The model measured as it is now, with the requests `inside` it, those of the last edits at their end."""
        fresh = [request for made in block for request in made.requests]
        found = walk_steps.measured(self.bench, session, unedited, inside, len(fresh)) | self.drift(session)
        found |= {probe.name: probe(self.bench.handle, self.bench.batch_size) for probe in self.probes}
        seconds = [made.cost.edit for made in block if made.cost.edit is not None]
        peaks = [made.cost.edit_bytes for made in block if made.cost.edit_bytes is not None]
        return Step(
            edits=len(inside),
            block=tuple(request.id for request in fresh),
            found=found,
            notes=block[-1].edit.notes,
            seconds=math.fsum(seconds) / len(seconds) if seconds else None,
            peak_bytes=max(peaks, default=None),
        )

    def _ratio(self, found: Mapping[str, Measurement]) -> float:
        ratio = Step(0, (), found).ratio(self.record.before)
        return math.inf if ratio is None else ratio

    def _breaks(self, step: Step) -> bool:
        """Whether the model is broken, for the first time on this course."""
        return self.record.breaking is None and not self._ratio(step.found) <= self.limit

    def _found_out(
        self, session: EditSession, unedited: Mark, good: Mark, block: Sequence[_Made], step: Step
    ) -> Breaking:
        """The edit of the last block that broke the model."""
        here = session.mark()

        def ratio(count: int) -> float:
            session.back_to(good)
            for made in block[:count]:
                session.apply(made.edit)
            return self._ratio(walk_steps.perplexity(self.bench))

        before = self._ratio(self.record.steps[-1].found) if self.record.steps else 1.0
        broken = self._ratio(step.found)
        number, fine, ratio_after = crossing(len(block), ratio, limit=self.limit, fine=before, broken=broken)
        made = block[number - 1]
        behind = sum(len(later.requests) for later in block[number:])
        alone, trouble = self._alone(session, unedited, made.requests)
        session.back_to(here)
        return self._breaking(made, step.edits - behind, ratio_after, before=fine, alone=alone, trouble=trouble)

    def _alone(
        self, session: EditSession, unedited: Mark, requests: tuple[EditRequest, ...]
    ) -> tuple[float | None, str]:
        """The ratio of the same requests edited into the unedited model; or what the editor made of that."""
        session.back_to(unedited)
        try:
            made, _ = self._made(requests, None)
            session.apply(made.edit)
        except (UndoError, NotPreparedError):
            raise
        except Exception as error:  # the boundary again; that an edit breaks the model is known by now and must stay
            return None, told(error)
        return self._ratio(walk_steps.perplexity(self.bench)), ""

    def _breaking(
        self, made: _Made, edits: int, ratio: float, *, before: float, alone: float | None, trouble: str = ""
    ) -> Breaking:
        notes = {**plain_notes(made.edit.notes), **({"alone_failed": trouble} if trouble else {})}
        name = ""
        if self.delta is not None:
            try:
                replace(made.edit, notes=notes).save(self.delta)
            except OSError as error:
                raise StoreError(f"{self.delta}: the edit cannot be saved ({error}). Make room, run again.") from error
            name = f"{self.delta.parent.name}/{self.delta.name}"
        return Breaking(edits, made.requests, ratio, before, alone, made.edit.id, name, notes)

    def _commit(self, step: Step, breaking: Breaking | None, ended: str) -> None:
        self.record = replace(self.record.plus(step), breaking=self.record.breaking or breaking, ended=ended)
        self.on_step(self.record)

    def _keep(self, session: EditSession, carry: Mapping[str, Tensor] | None) -> None:
        if self.checkpoint is not None:
            about = {"steps": len(self.record.steps), "edits": self.record.steps[-1].edits}
            walk_checkpoint.save(self.checkpoint, session, carry, course=self._key, **about)

    @property
    def _key(self) -> str:
        return self.course.key(self.bench.handle.identity)

    def _resumed(self, session: EditSession) -> tuple[Mapping[str, Tensor] | None, int]:
        """What the last edit carried, and how many requests are in the model, which is brought to that state."""
        if not self.record.steps:
            return None, 0
        try:
            if self.checkpoint is None:
                raise EditSafetyError("no checkpoint was kept.")
            known = self.editor.sidecars
            found = walk_checkpoint.load(
                self.checkpoint, self.editor.name, self.bench.handle.identity, known, course=self._key
            )
            at = self.record.steps[found.steps - 1].edits if 0 < found.steps <= len(self.record.steps) else None
            if at != found.edits:
                raise EditSafetyError(f"{self.checkpoint}: is of step {found.steps}, which is not on record.")
            session.apply(found.state)
        except EditSafetyError as error:
            said = f"begun again after {self.record.steps[-1].edits} edits, of which nothing could be used: {error}"
            self.record = self.record.up_to(0).remarked(said)
            return None, 0
        self.record = self.record.up_to(found.steps)  # a kill between the record and its checkpoint: one step back
        return found.carry, found.edits


def _begun(course: Course, editor: Editor) -> CourseRecord:
    model, planned = slug(course.model), len(course.requests)
    return CourseRecord(course.id, model, editor.name, course.stream, course.schedule, planned)
