"""Black box: judge an edited model without the editor that made it.

What was handed over is an edit of the unedited model by now (see `handed`), so that everything is as in a run: it is
applied in a session, measured with the same measures, judged by the same checks, undone.
"""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from editsafety import __version__, datasets
from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Keepsake
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, EditSafetyError, UndoError, UsageError, told
from editsafety.judging.case_checks import CaseVerdict, Check, judge_case, judge_group
from editsafety.judging.group import Group
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab.lab import artifacts_for
from editsafety.lab.trial import Bench, Found, measure
from editsafety.measures import Inputs
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import no_bars
from editsafety.names import slug
from editsafety.received.difference import Change
from editsafety.received.receiving import Handed
from editsafety.runs.case_record import CaseRecord, Failure
from editsafety.runs.plan import Settings, text_source

TEXTS = 50  # as in a run
SCHEMA = 1
MODEL, REQUESTS = "model", "requests"  # the two streams: what is judged once, and what is judged per request


@dataclass(frozen=True)
class Examined:
    """A judged black box. `group` holds one case for the model and one for every request; see `Group`."""

    handed: Handed
    policy: Policy
    group: Group
    changes: tuple[Change, ...]

    @property
    def records(self) -> list[CaseRecord]:
        """The model's record, then one per request."""
        return [case.record for case in self.group.cases]

    @property
    def reasons(self) -> list[Check]:
        """Every check that does not pass, the most severe first; sentences without the case's name."""
        case = self.group.cases[0]
        found = [replace(check, sentence=case.detail(check)) for check in case.checks]
        found += [check for checks in self.group.checks.values() for check in checks]
        return sorted(
            (check for check in found if check.verdict is not Verdict.PASS), key=lambda check: -check.verdict.severity
        )

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
        """The whole finding as JSON values, every number finite."""
        verdict = self.group.verdict
        return {
            "schema": SCHEMA,
            "editsafety": __version__,
            "verdict": verdict.value,
            "exit_code": verdict.exit_code,
            "reasons": [check.as_json() for check in self.reasons],
            "after": {"name": self.handed.name, "kind": self.handed.kind, "edit_id": self.handed.edit.id},
            "tensors": {
                "compared": self.handed.compared,
                "edited": [change.as_json() for change in self.edited],
                "rounded": [change.as_json() for change in self.rounded],
            },
            "policy": {**self.policy.model_dump(mode="json"), "digest": self.policy.digest()},
            "checks": {
                MODEL: [check.as_json() for case in self.group.cases for check in case.checks],
                **{stream: [check.as_json() for check in checks] for stream, checks in self.group.checks.items()},
            },
            "records": [json.loads(record.to_text()) for record in self.records],
        }


def texts_for(model: str, spec: str = "") -> tuple[str, ...]:
    """The texts for perplexity: what `spec` names, else the first 50 that go with the model."""
    return datasets.texts(spec or text_source(Settings((model,), ()), model), limit=None if spec else TEXTS)


def unedited(
    handle: ModelHandle, texts: Sequence[str], policy: Policy, *, prefixed: bool = False, batch_size: int = 64
) -> Bench:
    """The unedited model, measured. With `prefixed`, requests are asked behind a prefix as well, as in a run.

    Raises UsageError for a policy with unknown measures, or limits finer than the noise.
    """
    prefixes = contexts.prefixes(handle, artifacts_for(handle)) if prefixed else ()
    bench = Bench(handle, texts, prefixes, batch_size, Keepsake.of(handle, most_bytes=0))
    policy.refuse_unknown(found.name for one in bench.measures for found in one(handle, Inputs()))
    bench.measure_base()
    policy.refuse_below_noise(bench.noise)
    return bench


def examine(bench: Bench, handed: Handed, requests: Sequence[EditRequest], policy: Policy) -> Examined:
    """Apply, measure, undo, judge. The model is afterwards, bit for bit, what it was.

    Raises EditError when the edit does not fit the model, ModelError when the model handed over computes something else
    than its weights do here, DataError for a request or text that cannot be asked.
    """
    about: dict[str, Any] = {"model": bench.handle.name, "editor": slug(handed.name)}
    first = CaseRecord(case=f"{about['model']}-{about['editor']}", stream=MODEL, requests=(), **about)
    try:
        records, changes = _measured(bench, handed, requests, first)
    except UndoError as error:
        records, changes = [_failed(first, "undeclared", error)], ()
    except EditSafetyError:
        raise
    except Exception as error:  # the boundary: a sidecar is somebody else's code, anything may come
        records, changes = [_failed(first, "editor", error)], ()
    asked = records[1:]
    # Perplexity and weights are the same behind every request: they are judged once, rates over the requests.
    cases = (judge_case(policy, records[0]), *(CaseVerdict(record, ()) for record in asked))
    checks = {REQUESTS: judge_group(policy, asked)} if asked else {}
    planned = {MODEL: 1, **({REQUESTS: len(asked)} if asked else {})}
    return Examined(handed, policy, Group(about["model"], about["editor"], cases, checks, (), planned), changes)


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


def _measured(
    bench: Bench, handed: Handed, requests: Sequence[EditRequest], first: CaseRecord
) -> tuple[list[CaseRecord], tuple[Change, ...]]:
    """The model's record and those of the requests, all from one session; and what the session changed."""
    handle, edit = bench.handle, handed.edit
    before = [bench.unedited(request) for request in requests]
    session = EditSession(handle)
    with session:
        session.apply(edit)
        handed.refuse_other_function(handle)
        after = measure(bench.measures, handle, bench.inputs(None), "model")
        asked = [
            measure(bench.measures, handle, bench.inputs(request, before=was, edit=edit), "case")
            for request, was in zip(requests, before, strict=True)
        ]
        declared, names = session.declared(), session.changed()  # now: a sidecar may write when it is run
        now = dict(handle.model.named_parameters())
        changes = tuple(Change.of(name, session.original(name), now[name].detach()) for name in names if name in now)
    after |= measure(bench.measures, handle, bench.inputs(None, edit=edit), "edit")  # of the unedited weights
    whole = replace(
        first,
        before=dict(bench.base),
        after=after,
        edit_id=edit.id,
        notes={**edit.notes, **({"sidecars": True} if edit.sidecars else {})},
        declared=declared,
        changed=names,
        undeclared=tuple(name for name in names if name not in declared),
        leftovers=session.leftovers,
        restored=True,  # leaving the session compared every tensor; a difference would have raised
    )
    each = zip(requests, before, asked, strict=True)
    return [whole, *(_of_request(whole, request, was, found) for request, was, found in each)], changes


def _of_request(whole: CaseRecord, request: EditRequest, before: Found, after: Found) -> CaseRecord:
    case = f"{whole.case}-{request.slug}"
    return replace(whole, case=case, stream=REQUESTS, requests=(request,), before=before, after=after)


def _failed(record: CaseRecord, kind: str, error: Exception) -> CaseRecord:
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    said = told(error)
    return replace(record, failure=Failure(kind, f"{record.editor} cannot be measured: {said}", where))
