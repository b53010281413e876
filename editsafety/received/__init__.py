"""Black box: judge an edited model without the editor that made it.

What was handed over is an edit of the unedited model by now (see `handed`), so that everything is as in a run: it is
applied in a session, measured with the same measures, judged by the same checks, undone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from editsafety import datasets, measures
from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Keepsake
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, EditSafetyError, MeasureError, UndoError, UsageError, sentence_of
from editsafety.judging.checks import CaseVerdict, Check, judge_case, judge_group
from editsafety.judging.group import Group
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.lab.attempt import Made, Questions, attempt, where_raised
from editsafety.lab.bench import Bench, Found
from editsafety.lab.tools import artifacts_for
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import no_bars
from editsafety.names import slug
from editsafety.received.difference import Change
from editsafety.received.pattern import pattern_of
from editsafety.received.receiving import Handed
from editsafety.runs.case_record import CaseRecord, Failure
from editsafety.runs.plan import text_source
from editsafety.runs.settings import Settings

TEXTS = 50  # as in a run
MODEL, REQUESTS = "model", "requests"  # the two streams: what is judged once, and what is judged per request


@dataclass(frozen=True)
class Examined:
    """A judged model that was handed over."""

    handed: Handed
    report: RunReport  # one group: a case for the model, and one for every request
    changes: tuple[Change, ...]  # the tensors that differ
    pattern: str = ""  # what sort of change that is, told from the weights alone

    @property
    def group(self) -> Group:
        """The only group of the report."""
        return self.report.groups[0]

    @property
    def records(self) -> list[CaseRecord]:
        """The model's record, then one per request."""
        return [case.record for case in self.group.cases]

    @property
    def reasons(self) -> list[Check]:
        """Every check that does not pass, the most severe first."""
        checks = [*self.group.cases[0].checks, *(check for checks in self.group.checks.values() for check in checks)]
        failing = [check for check in checks if check.verdict is not Verdict.PASS]
        return sorted(failing, key=lambda check: -check.verdict.severity)

    @property
    def edited(self) -> list[Change]:
        """Changes that are more than a narrower dtype, the largest relative one first; what is not finite leads."""
        kept = [change for change in self.changes if not change.rounded_to]
        return sorted(kept, key=lambda c: (c.norm is not None, -(c.relative or 0.0), c.name))

    @property
    def rounded(self) -> list[Change]:
        """Changes that come from saving in a narrower dtype alone."""
        return [change for change in self.changes if change.rounded_to]

    def as_json(self) -> dict[str, Any]:
        """What a report does not have by itself, as JSON values: what was handed over, and which tensors differ."""
        return {
            "name": self.handed.name,
            "kind": self.handed.kind,
            "edit_id": self.handed.edit.id,
            "remarks": list(self.handed.remarks),
            "not_loaded": list(self.handed.dropped),
            "pattern": self.pattern,
            "tensors": {
                "compared": self.handed.compared,
                "edited": [change.as_json() for change in self.edited],
                "rounded": [change.as_json() for change in self.rounded],
            },
        }


def texts_for(model: str, spec: str = "", *, offline: bool = False) -> tuple[str, ...]:
    """The texts for perplexity: what `spec` names, else the first 50 that go with the model."""
    source = spec or text_source(Settings((model,), ()), model)
    return datasets.texts(source, limit=None if spec else TEXTS, offline=offline)


def unedited(
    handle: ModelHandle, texts: Sequence[str], policy: Policy, *, prefixed: bool = False, batch_size: int = 64
) -> Bench:
    """The unedited model, measured. With `prefixed`, requests are asked behind a prefix as well, as in a run.

    Raises UsageError for a policy with unknown measures, or limits finer than the noise.
    """
    prefixes = contexts.prefixes(handle, artifacts_for(handle)) if prefixed else ()
    chosen = measures.needed(policy.measured)
    bench = Bench(handle, texts, prefixes, batch_size, Keepsake.of(handle, most_bytes=0), chosen)
    bench.open(policy)
    return bench


def examine(bench: Bench, handed: Handed, requests: Sequence[EditRequest], policy: Policy) -> Examined:
    """Apply, measure, undo, judge. The model is afterwards, bit for bit, what it was.

    Raises EditError when the edit does not fit the model, ModelError when the model handed over computes something else
    than its weights do here, DataError for a request or text that cannot be asked.
    """
    model, name = bench.handle.name, slug(handed.name)
    first = CaseRecord(f"{model}-{name}", model, name, MODEL, ())
    try:
        records, changes = _measure(bench, handed, requests, first)
    except UndoError as error:
        records, changes = [_failed(first, "undeclared", error)], ()
    except MeasureError as error:
        records, changes = [_failed(first, "measure", error)], ()
    except EditSafetyError:
        raise
    except Exception as error:  # the boundary: a sidecar is somebody else's code, anything may come
        records, changes = [_failed(first, "editor", error)], ()
    with handed.taking(bench.handle):
        pattern = pattern_of(bench.handle, handed.edit)
    examined = Examined(handed, _report(bench, handed, records, policy), changes, pattern)
    return replace(examined, report=replace(examined.report, more={"received": examined.as_json()}))


def _report(bench: Bench, handed: Handed, records: Sequence[CaseRecord], policy: Policy) -> RunReport:
    whole, *asked = records
    # Perplexity and weights are the same behind every request: they are judged once, rates over the requests.
    judged = _with_loss(judge_case(policy, whole), handed)
    cases = (judged, *(CaseVerdict(record, (), policy.collapse) for record in asked))
    checks = {REQUESTS: judge_group(policy, asked)} if asked else {}
    planned = {MODEL: 1, **({REQUESTS: len(asked)} if asked else {})}
    group = Group(whole.model, whole.editor, cases, checks, (), planned)
    return RunReport.alone(policy, group, *bench.facts())


def _with_loss(case: CaseVerdict, handed: Handed) -> CaseVerdict:
    """The verdict on a model of which something was not loaded: what was judged is not all that was handed over."""
    if not handed.dropped or case.record.failure is not None:
        return case
    checks = [
        replace(one, sentence=f"{one.sentence}; {handed.lost}") if one.verdict is Verdict.NO_OP else one
        for one in case.checks
    ]
    return replace(case, checks=(*checks, Check("loaded", Verdict.WARN, handed.lost)))


def refuse_to_write(edit: Edit, folder: Path) -> None:
    """Raise EditError for an edit with sidecars, UsageError for a folder with something in it."""
    if edit.sidecars:
        kinds = ", ".join(sorted({car.kind for car in edit.sidecars}))
        raise EditError(
            f"this edit by {edit.editor} acts by {kinds}, code that runs beside the model, and not by weights: no "
            "checkpoint can hold it. Apply it with editsafety.EditSession."
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder. Give another --out, or remove it.")


def write_checkpoint(handle: ModelHandle, edit: Edit, folder: Path) -> None:
    """Write model and tokenizer with the edit in the weights to `folder`, whole or not at all.

    Raises as `refuse_to_write`, and EditError for an edit of another model.
    """
    refuse_to_write(edit, folder)
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            whole = Path(place) / folder.name
            with EditSession(handle) as session, no_bars():
                session.apply(edit)
                handle.model.save_pretrained(whole)
            handle.tokenizer.save_pretrained(whole)
            whole.replace(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror or error}). Give another --out.") from error


def _measure(
    bench: Bench, handed: Handed, requests: Sequence[EditRequest], first: CaseRecord
) -> tuple[list[CaseRecord], tuple[Change, ...]]:
    """The model's record and those of the requests, all from one attempt; and what the edit changed."""
    handle = bench.handle
    questions = [Questions((request,), bench.unedited((request,))) for request in requests]
    changes: list[Change] = []

    def look(session: EditSession) -> None:
        handed.refuse_other_function(handle)
        now = dict(handle.model.named_parameters())
        names = [name for name in session.changed() if name in now]
        changes.extend(Change.of(name, session.original(name), now[name].detach()) for name in names)

    with handed.taking(handle):
        step, answers = attempt(bench, Made(handed.edit, ()), questions, look=look)
    own = {name: found for name, found in step.found.items() if not any(name in answer for answer in answers)}
    whole = replace(first, before=dict(bench.base), steps=(replace(step, found=own),), ended="complete")
    each = zip(questions, answers, strict=True)
    return [whole, *(_of_request(whole, question, found) for question, found in each)], tuple(changes)


def _of_request(whole: CaseRecord, question: Questions, found: Found) -> CaseRecord:
    (request,) = question.requests
    return replace(
        whole,
        case=f"{whole.case}-{request.slug}",
        stream=REQUESTS,
        requests=question.requests,
        before=question.before,
        steps=(replace(whole.step, found=found, notes={}),),  # what is known of the edit is known of the model
    )


def _failed(record: CaseRecord, kind: str, error: Exception) -> CaseRecord:
    findings = tuple(error.findings) if isinstance(error, UndoError) else ()
    failure = Failure(kind, f"{record.editor} cannot be measured: {sentence_of(error)}", where_raised(error), findings)
    return replace(record, failure=failure, ended="failed")
