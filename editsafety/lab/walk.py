"""Walk: one editor goes along a course of requests on one model, which is measured at every step.

Edits are made apart (batch: each on the unedited model, restored afterwards) or on top of each other (sequential,
batch-sequential: each on the model as the earlier ones left it, with what the last one carries). What is measured at a
step is in `walk_steps`, `walk_drift` and the probes that are asked for.

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
from editsafety.editors import Editor
from editsafety.edits.session import EditSession, Mark
from editsafety.errors import EditSafetyError, NotPreparedError, StoreError, UndoError, UsageError, sentence_of
from editsafety.foreign import contained
from editsafety.lab import walk_checkpoint, walk_steps
from editsafety.lab.attempt import Made, compute, failure_of, only_rounded
from editsafety.lab.bench import Bench
from editsafety.lab.single import Make
from editsafety.lab.terms import Terms, why_not
from editsafety.lab.walk_bisection import crossing
from editsafety.lab.walk_drift import Drift
from editsafety.measures import probed
from editsafety.names import slug
from editsafety.runs.case import Case
from editsafety.runs.case_record import Breaking, CaseRecord, Cost, Step, perplexity_ratio, plain_notes
from editsafety.runs.measurement import Measurement


def walk(
    bench: Bench,
    editor: Editor,
    case: Case,
    terms: Terms,
    make: Make,
    *,
    known: CaseRecord | None = None,
    checkpoints: Path | None = None,
    delta: Path | None = None,
    on_step: Callable[[CaseRecord], None] = lambda record: None,
    on_edit: Callable[[int], None] = lambda written: None,
) -> CaseRecord:
    """Walk a course to its end, or go on where it was left; the model is afterwards what it was.

    `make` gives an edit of the unedited model, computed now or earlier in this run. `known` is the record so far.
    `checkpoints` is the file that holds the edited model of the last step (schedules on top of each other go on from
    there; what follows is bit for bit what an uninterrupted walk gives), `delta` the file that the edit which breaks
    the model is saved to. Past `terms.limit` times its unedited perplexity the model is broken, and likewise where that
    is no number; with `terms.stop` the course then ends. `on_step` is given the record after every step and has to
    commit it, `on_edit` how many requests are written, after each edit between two steps. In memory are, beside the
    edited weights, those of the last step and the edits since.

    What an editor does wrong is the record's `failure`; the steps before it stay. Raises UsageError when the editor's
    traits do not allow the schedule or the unedited model has no perplexity; NotPreparedError; StoreError; UndoError
    when the model cannot be brought back. Ctrl-C passes through after what was committed.
    """
    requests = len(case.requests)
    if refused := why_not(editor.name, editor.traits, case.schedule, requests):
        raise UsageError(refused)
    if not requests:
        raise UsageError(f"{case.id}: there is no request to edit.")
    if bench.base["me_ppl"].value is None:
        raise UsageError(f"{slug(bench.handle.spec.name)} has no finite perplexity before any edit.")
    if known is not None and known.ended:
        return known
    before = {**bench.base, **{probe.name: bench.probed(probe) for probe in terms.probes}}
    names = tuple(probe.name for probe in terms.probes)
    record = known or CaseRecord.begun(case, slug(case.model), editor.name, before=before, abilities=names)
    walker = _Walker(bench, editor, case, terms, make, checkpoints, delta, on_step, on_edit, record)
    try:
        walker.on_top() if case.schedule.cumulative else walker.apart()
    except (NotPreparedError, StoreError):
        raise
    except Exception as error:  # the boundary: an editor is somebody else's code, anything may come
        failure = failure_of(bench, editor.name, error)
        walker.record = replace(walker.record, failure=failure, ended="failed")
    return walker.record


@dataclass
class _Walker:
    """A walk under way; `record` is what is known by now."""

    bench: Bench
    editor: Editor
    case: Case
    terms: Terms
    make: Make
    checkpoint: Path | None
    delta: Path | None
    on_step: Callable[[CaseRecord], None]
    on_edit: Callable[[int], None]
    record: CaseRecord
    drift: Drift = field(default_factory=Drift)
    left: list[str] = field(default_factory=list)  # behind by the editor since the last step

    def apart(self) -> None:
        """Each edit on the unedited model."""
        portions = list(self.case.schedule.portions(len(self.case.requests)))
        for number, portion in enumerate(portions[len(self.record.steps) :], len(self.record.steps) + 1):
            made = self._noted(self.make(self.case.requests[portion.start : portion.stop]))
            session = EditSession(self.bench.handle, baseline=self.bench.baseline)
            with session, contained(self._whose):
                unedited = session.mark()
                session.apply(made.edit)
                step = self._step(session, unedited, made.requests, [made])
            step = self._told(step, session.leftovers)
            breaking = None
            if self._breaks(step):
                broken = self._ratio(step.found)
                breaking = self._breaking(made, len(made.requests), broken, before=1.0, alone=broken)
            over = breaking is not None and self.terms.stop
            self._commit(step, breaking, "collapsed" if over else "complete" if number == len(portions) else "")
            if over:
                return

    def on_top(self) -> None:
        """Every edit on top of the earlier ones."""
        schedule, requests = self.case.schedule, self.case.requests
        session = EditSession(self.bench.handle, baseline=self.bench.baseline)
        with session, contained(self._whose):
            unedited = session.mark()
            carry, last = self._resumed(session)
            good, block = session.mark(), list[Made]()
            for portion in schedule.portions(len(requests)):
                if portion.start < last:
                    continue
                made = self._next(requests[portion.start : portion.stop], carry, first=portion.start == 0)
                carry, made = made.edit.carry, replace(made, edit=replace(made.edit, carry=None))
                session.apply(made.edit)
                block.append(made)
                if not schedule.is_measured(portion.stop, last, len(requests)):
                    self.on_edit(portion.stop)
                    continue
                step = self._step(session, unedited, requests[: portion.stop], block)
                self._prove(session, unedited)
                breaking = self._found_out(session, unedited, good, block, step) if self._breaks(step) else None
                over = self.terms.stop and not self._ratio(step.found) <= self.terms.limit
                step = self._told(step)
                self._commit(step, breaking, "collapsed" if over else "complete" if step.edits == len(requests) else "")
                if self.record.ended:
                    return
                good, block, last = session.mark(), [], portion.stop
                self._keep(session, carry)

    def _next(self, requests: tuple[EditRequest, ...], carry: Mapping[str, Tensor] | None, *, first: bool) -> Made:
        """The edit of the requests on top of what is there, and what it carries as it would come from a file.

        Products round by the layout of what they multiply, so that has to be the same after a resume.
        """
        made = self.make(requests) if first else self._on_top(requests, carry)
        edit = made.edit
        kept = None if edit.carry is None else {name: t.detach().contiguous() for name, t in edit.carry.items()}
        return self._noted(replace(made, edit=replace(edit, carry=kept)))

    def _on_top(self, requests: tuple[EditRequest, ...], carry: Mapping[str, Tensor] | None) -> Made:
        """An edit of the model as it is now. What that does is not known; `_prove` says when the rest is changed."""
        known = self.bench.baseline and self.bench.baseline.behaving(None)
        return compute(self.bench.handle, self.editor, requests, carry, baseline=known, prove="in doubt")

    def _noted(self, made: Made) -> Made:
        """The edit; what its editor left behind is said with the next step."""
        self.left += made.leftovers
        return made

    def _prove(self, session: EditSession, unedited: Mark) -> None:
        """Make sure that the model without its edits does what it did. Raises UndoError when it does not."""
        if (baseline := self.bench.baseline) is None:
            return
        here = session.mark()
        session.back_to(unedited)
        self.left += baseline.put_back()
        different = baseline.differences(self.bench.handle)
        session.back_to(here)
        if different:
            raise UndoError(different, leftovers=self.left)

    def _told(self, step: Step, more: Sequence[str] = ()) -> Step:
        """The step with what was left behind until then, which is remarked as well."""
        left = tuple(dict.fromkeys((*step.leftovers, *self.left, *more)))
        self.left = []
        if left:
            said = f"{self.editor.name} left something behind: {'; '.join(left)}; it was put back"
            self.record = self.record.remarked(said)
        return replace(step, leftovers=left)

    def _step(self, session: EditSession, unedited: Mark, inside: Sequence[EditRequest], block: Sequence[Made]) -> Step:
        """The model measured as it is now, with the requests `inside` it, those of the last edits at their end."""
        fresh = [request for made in block for request in made.requests]
        found = walk_steps.measure_step(self.bench, session, unedited, inside, len(fresh)) | self.drift(session)
        found |= {probe.name: probed(probe, self.bench.handle, self.bench.batch_size) for probe in self.terms.probes}
        seconds = [made.cost.edit for made in block if made.cost.edit is not None]
        rounded = only_rounded(session)
        peaks = [made.cost.edit_bytes for made in block if made.cost.edit_bytes is not None]
        return Step(
            edits=len(inside),
            block=tuple(request.id for request in fresh),
            found=found,
            notes=block[-1].notes,
            cost=Cost(
                math.fsum(seconds) / len(seconds) if seconds else None,
                edit_bytes=max(peaks, default=None),
                reused=math.fsum(made.cost.reused for made in block) / len(block),
            ),
            edit_id=block[-1].edit.id,
            declared=session.declared(),
            changed=tuple(name for name in session.declared() if name not in rounded),
            rounded=rounded,
        )

    def _ratio(self, found: Mapping[str, Measurement]) -> float:
        ratio = perplexity_ratio(self.record.before.get("me_ppl"), found.get("me_ppl"))
        return math.inf if ratio is None else ratio

    def _breaks(self, step: Step) -> bool:
        """Whether the model is broken, for the first time on this course."""
        return self.record.breaking is None and not self._ratio(step.found) <= self.terms.limit

    def _found_out(
        self, session: EditSession, unedited: Mark, good: Mark, block: Sequence[Made], step: Step
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
        number, fine, ratio_after = crossing(len(block), ratio, limit=self.terms.limit, fine=before, broken=broken)
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
            made = self._noted(self.make(requests))
            session.apply(made.edit)
        except (UndoError, NotPreparedError, StoreError):
            raise
        except Exception as error:  # the boundary again; that an edit breaks the model is known by now and must stay
            return None, sentence_of(error)
        return self._ratio(walk_steps.perplexity(self.bench)), ""

    def _breaking(
        self, made: Made, edits: int, ratio: float, *, before: float, alone: float | None, trouble: str = ""
    ) -> Breaking:
        notes = {**plain_notes(made.notes), **({"alone_failed": trouble} if trouble else {})}
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
    def _whose(self) -> str:
        return f"{self.editor.name}, or a sidecar of it,"

    @property
    def _key(self) -> str:
        return self.case.key(self.bench.handle.identity)

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
