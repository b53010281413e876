"""Lab: runs cases and keeps their records. Whoever wants a record asks here; nobody computes a case twice.

A missing case has its whole block (same model, same editor) computed at once, so that a model is loaded once and an
editor made once. Several processes may share a store: each claims a few cases at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from editsafety import __version__, editors, measures
from editsafety.artifacts import ArtifactStore, default_root
from editsafety.editing import contexts
from editsafety.editors import Editor
from editsafety.edits.seal import Keepsake
from editsafety.errors import EditorError, EditSafetyError, NotPreparedError, StoreError, UndoError, UsageError
from editsafety.judging.policy import Policy
from editsafety.lab import provenance, trial
from editsafety.lab.courses import DEATHS, Terms, refusal, walked
from editsafety.lab.trial import Bench
from editsafety.measures import Inputs
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec, model_folder
from editsafety.names import label, slug
from editsafety.progress import Progress
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.measurement import Measurement
from editsafety.runs.plan import Case, RunPlan, text_digest
from editsafety.runs.schedule import Course
from editsafety.runs.store import Store

CHUNK = 4  # cases that one of several workers claims at a time
Unit = TypeVar("Unit", Case, Course)
Record = TypeVar("Record")


class Lab:
    """`wanted` are the cases of this session (all planned ones by default); `workers` share the store and the cores.

    `handles` are models that are in memory already, by the name that the plan calls them. `terms` may be set to walk
    the courses of a model otherwise than plan and policy say.
    """

    def __init__(
        self,
        plan: RunPlan,
        store: Store,
        progress: Progress,
        *,
        workers: int = 1,
        handles: Mapping[str, ModelHandle] | None = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.progress = progress
        self.workers = workers
        self.handles = dict(handles or {})
        self.wanted: Sequence[Case] = (*plan.cases, *plan.controls)
        self.wanted_courses: Sequence[Course] = plan.courses
        self.terms: dict[str, Terms] = {}
        self._bench: Bench | None = None
        self._made: dict[tuple[str, str], Editor] = {}
        self._keys: dict[str, str] = {}
        self._refused: dict[tuple[str, str], EditSafetyError] = {}
        if workers > 1:
            torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // workers)))

    def record(self, case: Case) -> CaseRecord:
        """The record of a case, computed with its block when it is missing.

        Raises EditSafetyError for what stands in the way of the whole block (no such model, wrong hyperparameters, an
        editor that is not prepared or cannot be made); it is noted for the report, and not tried again.
        """
        with self._boundary(case):
            return self._record(case)

    def course(self, course: Course) -> CourseRecord:
        """The record of a whole course: the stored one, or walked, or gone on with where it was left.

        Raises UsageError when the schedule is none for this editor (`courses.refusal` says so beforehand), and what
        `record` raises.
        """
        if refused := refusal(course):
            raise UsageError(refused)  # of this schedule only: the cases of the block can be run
        with self._boundary(course):
            while (found := self.store.course(self.course_key(course))) is None or not found.ended:
                block = {self.course_key(one): one for one in (course, *self._unfinished(course))}
                if not (claimed := self.store.claim(list(block), 1)):
                    time.sleep(0.05)  # other processes are at all of them
                    continue
                one, tools = block[claimed[0]], lambda: self._tools(course)
                try:
                    walked(self.store, self.progress, one, self._terms_of(one), claimed[0], tools)
                finally:
                    self.store.claim([], 0)
            return found

    def course_key(self, course: Course) -> str:
        """What the record of a course is found by in the store; the fact `course key:<id>` has its shared part."""
        shared = self._terms_of(course).shared(self._shared_key(course))
        name = f"course key:{course.id}"
        if self.store.get(name) != shared:
            self.store.put(name, shared)
        return course.key(shared)

    def _unfinished(self, course: Course) -> Iterator[Course]:
        """What a process can do for others while another one walks the course that it waits for."""
        for other in self.wanted_courses if self.workers > 1 else ():
            if other.block == course.block and not refusal(other):
                found = self.store.course(self.course_key(other))
                if found is None or not found.ended:
                    yield other

    def _terms_of(self, course: Course) -> Terms:
        if course.model not in self.terms:
            self.terms[course.model] = Terms.of(self.plan, course.model)
        return self.terms[course.model]

    def _tools(self, unit: Case | Course) -> tuple[Bench, Editor]:
        return self.bench(unit.model), self.ready(unit.model, unit.editor)

    @contextmanager
    def _boundary(self, unit: Case | Course) -> Iterator[None]:
        """What stands in the way of a whole block is noted, and not tried again."""
        if unit.block in self._refused:
            raise self._refused[unit.block]
        try:
            yield
        except StoreError:
            raise
        except UndoError:
            self._bench = None  # not the model any more that it was: the next case loads it again
            raise
        except Exception as error:  # the boundary: an editor is somebody else's code and may raise anything
            refused = error if isinstance(error, EditSafetyError) else EditorError(_said(unit, error))
            self._refused[unit.block] = refused
            self.store.put(f"problem:{slug(unit.model)}:{label(unit.editor)}", str(refused))
            if refused is error:
                raise
            raise refused from error

    def _record(self, case: Case) -> CaseRecord:
        key = self.key(case)
        while (found := self.store.record(key)) is None:
            block = {self.key(other): other for other in (case, *self.wanted) if other.block == case.block}
            claimed = self.store.claim(list(block), len(block) if self.workers == 1 else CHUNK)
            if claimed:
                try:
                    self._compute([block[k] for k in claimed])
                except BaseException:
                    self.store.claim([], 0)  # gives back what was claimed, so that nobody waits for it
                    raise
            else:
                time.sleep(0.05)  # another process is at it
        return found

    def finished(self, cases: Iterable[Case]) -> dict[str, CaseRecord]:
        """The records that exist of these cases, by case id; computes nothing and loads no model."""
        found = {case.id: self._kept(case, self.key, self.store.record) for case in cases}
        return {name: record for name, record in found.items() if record is not None}

    def finished_courses(self, courses: Iterable[Course]) -> dict[str, CourseRecord]:
        """The records of those that have ended, likewise."""
        found = {course.id: self._kept(course, self.course_key, self.store.course) for course in courses}
        return {name: record for name, record in found.items() if record is not None and record.ended}

    def _kept(self, unit: Unit, key: Callable[[Unit], str], read: Callable[[str], Record | None]) -> Record | None:
        if self.store.get(f"model:{slug(unit.model)}") is None:
            return None
        try:
            return read(key(unit))
        except EditSafetyError:
            return None  # an editor that cannot be made has no records; its items have said so

    def bench(self, model: str) -> Bench:
        """The model, loaded and measured unedited; one model at a time is kept."""
        if self._bench is None or self._bench.handle.spec.name != model:
            self._bench = None
            self._made.clear()
            self._bench = self._load(model)
        return self._bench

    def editor(self, model: str, name: str) -> Editor:
        """An editor for a model, with its hyperparameters. Raises UsageError."""
        if (model, name) not in self._made:
            bench = self.bench(model)
            settings = self.plan.settings
            self._made[model, name] = self._new_editor(bench.handle, name)
            found = self._made[model, name]
            aside = editors.set_aside(name, settings.hparams_of(name))
            self.store.put_new(
                f"editor:{slug(model)}:{label(name)}",
                {
                    "hparams": found.hparams.model_dump(mode="json"),
                    "file": str(settings.hparams_of(name) or ""),
                    "code": editors.code_version(name),
                    "paper": found.traits.paper,
                    "reference": found.traits.reference,
                    **({"set_aside": list(aside)} if aside else {}),
                },
            )
        return self._made[model, name]

    def prepare(self, model: str, name: str) -> bool:
        """Run the slow part of an editor if it is missing. True when something was done."""
        editor = self.editor(model, name)
        if editor.missing() is None:
            return False
        editor.prepare(self.progress)
        return True

    def ready(self, model: str, name: str) -> Editor:
        """An editor that can edit at once. Raises NotPreparedError.

        Of a shipped model the texts are here and preparing takes seconds; any other is prepared when told to.
        """
        if self.plan.settings.prepare or model_folder(model) is not None:
            self.prepare(model, name)
        editor = self.editor(model, name)
        missing = editor.missing()
        if missing is not None:
            raise NotPreparedError(label(name), model, missing)
        return editor

    def same_in_any_order(self, model: str, editor: str) -> tuple[bool, str]:
        """Whether the last and the first case, computed alone by a new editor in reverse order, give the same bytes."""
        name = f"order:{slug(model)}:{label(editor)}"
        known = self.store.get(name)
        cases = [case for case in self.plan.cases if case.block == (model, editor)]
        if known is None or known.get("key") != self._shared_key(cases[0]):
            records = [(case, self.record(case)) for case in dict.fromkeys((cases[-1], cases[0]))]
            handle = self.bench(model).handle
            different = []
            for case, record in records:
                if record.edit_id is None:
                    continue
                edit, _, _ = trial.compute(handle, self._new_editor(handle, editor), (case.request,))
                if edit.id != record.edit_id:
                    different.append(case.id)
            compared = sum(record.edit_id is not None for _, record in records)
            known = {"different": different, "compared": compared, "key": self._shared_key(cases[0])}
            self.store.put(name, known)
        if not known["compared"]:
            return False, f"{label(editor)} on {slug(model)}: no case gave an edit, so nothing can be compared"
        if known["different"]:
            names = ", ".join(known["different"])
            return False, f"{label(editor)} on {slug(model)}: {names} came out differently alone, in another order"
        return True, f"{label(editor)} on {slug(model)}: {known['compared']} cases are the same bytes in another order"

    def key(self, case: Case) -> str:
        """sha256 of everything that can change the result of a case (the policy cannot)."""
        return case.key(self._shared_key(case))

    def _shared_key(self, case: Case | Course) -> str:
        name = "/".join(case.block)
        if name not in self._keys:
            settings = self.plan.settings
            model = self.store.get(f"model:{slug(case.model)}") or provenance.of_model(self.bench(case.model).handle)
            path = settings.hparams_of(case.editor)
            body = {
                "version": __version__,
                "model": model["fingerprint"],
                "device": model["device"],
                "dtype": model["dtype"],
                "attention": model["attention"],
                "editor": [case.editor, editors.code_version(case.editor)],
                "hparams": editors.read_hparams(case.editor, slug(case.model), path).model_dump(mode="json"),
                "texts": text_digest(self.plan.texts[case.model]),
                "seed": settings.seed,
                "batch": settings.batch_size,
                "measures": {one.name: one.version for one in measures.needed(Policy.read(settings.policy).measured)},
            }
            self._keys[name] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
            self.store.put(f"key:{slug(case.model)}:{label(case.editor)}", self._keys[name])
        return self._keys[name]

    def _compute(self, cases: Sequence[Case]) -> None:
        model, name = cases[0].block
        bench, editor = self._tools(cases[0])
        with self.progress.task(f"{label(name)} on {slug(model)}", len(cases)) as task:
            for case in cases:
                key = self.key(case)
                deaths = self.store.start(key)
                try:
                    given_up = deaths >= DEATHS
                    record = trial.given_up(bench, editor, case, deaths) if given_up else trial.run(bench, editor, case)
                except BaseException:
                    self.store.leave(key)
                    raise
                self.store.finish(key, record)
                task.step(case.id)
        if bench.handle.fingerprint() != bench.handle.identity:
            self.store.put(f"drift:{slug(model)}:{label(name)}", True)
            bench.repair()

    def _new_editor(self, handle: ModelHandle, name: str) -> Editor:
        settings = self.plan.settings
        return editors.make(name, handle, artifacts_for(handle), path=settings.hparams_of(name), seed=settings.seed)

    def _load(self, model: str) -> Bench:
        settings = self.plan.settings
        spec = ModelSpec(
            model, settings.device, settings.dtype, settings.revision, settings.offline, settings.trust_remote_code
        )
        handle = self.handles.get(model) or ModelHandle.load(spec)
        about = provenance.of_model(handle)
        known = self.store.get(f"model:{slug(model)}")
        if known is not None and known["fingerprint"] != about["fingerprint"]:
            self._keys.clear()  # other weights under the same name: nothing that was kept applies
        prefixes = contexts.prefixes(handle, artifacts_for(handle), seed=settings.seed)
        policy = Policy.read(settings.policy)
        chosen = measures.needed(policy.measured)
        bench = Bench(handle, self.plan.texts[model], prefixes, settings.batch_size, Keepsake.of(handle), chosen)
        kept = f"base:{slug(model)}:{about['fingerprint']}:{text_digest(bench.texts)[:16]}"
        base = self.store.get(kept)
        if base is None:
            bench.measure_base()
            base = {"noise": bench.noise, "found": {name: m.as_json() for name, m in bench.base.items()}}
            self.store.put(kept, base)
        else:
            bench.noise = base["noise"]
            bench.base = {name: Measurement.from_json(row) for name, row in base["found"].items()}
        policy.refuse_unknown(found.name for one in bench.measures for found in one(handle, Inputs()))
        policy.refuse_below_noise(bench.noise)
        self.store.put(f"model:{slug(model)}", {**about, "noise": bench.noise})
        self.store.put_new("provenance", provenance.of_software())
        return bench


def _said(case: Case | Course, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{label(case.editor)} on {slug(case.model)} cannot be run: {type(error).__name__}: {error}{where}"


def artifacts_for(handle: ModelHandle) -> ArtifactStore:
    """The user's artifacts, and those shipped with a pocket model."""
    folder = model_folder(handle.spec.name)
    return ArtifactStore(default_root(), (folder / "artifacts",) if folder else ())
