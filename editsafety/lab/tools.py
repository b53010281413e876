"""Tools: the model and the editors that cases are run with. One model at a time is kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from editsafety import discovery, editors, measures
from editsafety.artifacts import ArtifactStore, default_root
from editsafety.editing import contexts
from editsafety.editors import Editor
from editsafety.edits.behaviour import Behaviour
from editsafety.edits.seal import Keepsake
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, ModelError, NotPreparedError, SpoiltProcessError, StoreError, UndoError
from editsafety.judging.policy import Policy
from editsafety.lab import provenance, yardstick
from editsafety.lab.bench import Bench
from editsafety.lab.keys import CaseKeys
from editsafety.lab.unedited_shelf import UneditedShelf, conditions_of
from editsafety.lab.watch import Sign, Watch, unwatched
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec, model_folder
from editsafety.names import label, parts, slug
from editsafety.progress import Progress, Task
from editsafety.runs.case import Block
from editsafety.runs.facts import (
    Columns,
    EditorFacts,
    ModelFacts,
    ModelFiles,
    Pace,
    Software,
    Unedited,
    Unusable,
    Yardstick,
)
from editsafety.runs.model_files import state_of_files
from editsafety.runs.plan import RunPlan, text_digest
from editsafety.runs.store import Store


class Tools:
    """Loads models and makes editors, as a plan says; what is known of them is noted in the store.

    `handles` are models that are in memory already, by the name that the plan calls them. `spoilt` says why nothing can
    be judged in this process any more, once that is so; whoever runs it should end it and start another.
    """

    def __init__(
        self,
        plan: RunPlan,
        store: Store,
        progress: Progress,
        handles: Mapping[str, ModelHandle] | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self.keys = CaseKeys(plan, store, lambda model: provenance.of_model(self.bench(model).handle))
        self._plan, self._store, self._progress = plan, store, progress
        self._handles, self._watch = dict(handles or {}), watch
        self._bench: Bench | None = None
        self._made: dict[Block, Editor] = {}
        self._behaviours: dict[str, Behaviour] = {}  # by fingerprint: what each model did when it was first loaded
        self.spoilt = ""
        self._unloadable: dict[str, ModelError] = {}  # by name: another editor does not make a model appear

    def drop(self) -> None:
        """Let go of the model: it is not what it was, and the next case loads it again."""
        self._bench = None

    def in_memory(self, model: str) -> Bench | None:
        """The model, if it is the one that is loaded."""
        return self._bench if self._bench is not None and self._bench.handle.spec.name == model else None

    def bench(self, model: str) -> Bench:
        """The model, loaded and measured unedited; one model at a time is kept.

        Raises SpoiltProcessError where a model that was loaded again does not do what it did the first time; ModelError
        where there is no such model, without looking for it a second time.
        """
        if self.spoilt:
            raise SpoiltProcessError(self.spoilt)
        if model in self._unloadable:
            raise self._unloadable[model]
        if self._bench is None or self._bench.handle.spec.name != model:
            self._bench = None
            self._made.clear()
            self._bench = self._load(model)
        return self._bench

    def editor(self, model: str, name: str) -> Editor:
        """An editor for a model, with its hyperparameters. Raises UsageError."""
        if (model, name) not in self._made:
            handle = self.bench(model).handle
            self._watch(Sign("making", model, name))
            editor = self._made[model, name] = self.new_editor(handle, name)
            facts = self._facts_of(editor, model, name)
            self._store.note(facts)
            if facts.carried_from is not None:
                self._progress.say(facts.carried_from.announce(facts.editor, facts.model))
            self._watch(Sign())
        return self._made[model, name]

    def prepare(self, model: str, name: str) -> bool:
        """Run the slow part of an editor if it is missing. True when something was done."""
        editor = self.editor(model, name)
        if editor.missing() is None:
            return False
        self._watch(Sign("preparing", model, name))
        with self._watched(editor.handle, name, "prepared itself"):
            editor.prepare(self._progress)
        self._watch(Sign())
        return True

    def ready(self, model: str, name: str) -> Editor:
        """An editor that can edit at once. Raises NotPreparedError.

        Of a shipped model the texts are here and preparing takes seconds; any other is prepared when told to.
        """
        if self._plan.settings.prepare or model_folder(model) is not None:
            self.prepare(model, name)
        editor = self.editor(model, name)
        missing = editor.missing()
        if missing is not None:
            raise NotPreparedError(label(name), model, missing)
        return editor

    def read_yardstick(self, model: str, name: str) -> None:
        """Time a forward pass of the unedited model, beside those of this block that were timed before."""
        handle = self.bench(model).handle
        kind = yardstick.machine(handle)
        known = self._store.fact(Yardstick, f"{slug(model)}:{label(name)}")
        before = known.seconds if known is not None and known.machine == kind else ()
        seconds = yardstick.reading(handle) if len(before) < yardstick.MOST else None
        if seconds is not None:
            self._store.note(Yardstick(slug(model), label(name), (*before, seconds), kind))

    def _facts_of(self, editor: Editor, model: str, name: str) -> EditorFacts:
        file, build = self._plan.settings.hparams_of(name), editors.build_of(editor.handle)
        return EditorFacts(
            model=slug(model),
            editor=label(name),
            hparams=editor.hparams.model_dump(mode="json"),
            code=editors.code_version(name),
            file=str(file or ""),
            origin=_origin(name),
            paper=editor.traits.paper,
            reference=editor.traits.reference,
            set_aside=tuple(editors.set_aside(name, file)),
            carried_from=editors.carried_from(name, slug(model), file, build),
        )

    def new_editor(self, handle: ModelHandle, name: str) -> Editor:
        """An editor that has not edited anything yet."""
        settings = self._plan.settings
        with self._watched(handle, name, "was made"):
            path, own = settings.hparams_of(name), artifacts_for(handle)
            return editors.make(name, handle, own, path=path, seed=settings.seed, patience=settings.timeout)

    @contextmanager
    def _watched(self, handle: ModelHandle, editor: str, when: str) -> Iterator[None]:
        """A session around what an editor does apart from editing. Raises EditorError for what it leaves behind."""
        # Inside another session the model may be edited, and does not do what it did at first.
        first = self._bench is not None and self._bench.handle is handle and not handle.open_sessions
        known = self._bench.baseline if self._bench is not None and first else None
        session = EditSession(handle, baseline=known and known.renewed())
        try:
            with session:
                yield
        except UndoError as error:
            self.drop()
            raise EditorError(f"{label(editor)} changed something while it {when}: {error}") from error
        if session.leftovers:
            raise EditorError(f"{label(editor)} left something behind while it {when}: {'; '.join(session.leftovers)}.")

    def _load(self, model: str) -> Bench:
        settings = self._plan.settings
        spec = ModelSpec.asked(model, settings, chat=settings.chat)
        self._watch(Sign("loading", model))
        shown = self._progress if model_folder(model) is None else Progress.quiet()  # of a shipped one it takes seconds
        with shown.task(f"{slug(model)}, unedited", 2) as task:
            return self._opened(spec, task)

    def _opened(self, spec: ModelSpec, task: Task) -> Bench:
        """The model, loaded, and measured where that was not done before; a step of the task for each."""
        model, settings = spec.name, self._plan.settings
        files = ModelFiles(slug(model), state_of_files(model))  # as they were before they were read
        try:
            handle = self._handles.get(model) or ModelHandle.load(spec)
        except ModelError as error:
            self._unloadable[model] = error
            raise
        for said in handle.announcements(spec):
            self._progress.say(said)
        handle.engine.plain = settings.plain
        facts = provenance.of_model(handle)
        self._refuse_other_weights(facts)
        task.step("loaded")
        prefixes = contexts.prefixes(handle, artifacts_for(handle), seed=settings.seed)
        policy = Policy.of(settings)
        chosen = measures.needed(policy.measured)
        bench = Bench(handle, self._plan.texts[model], prefixes, settings.batch_size, Keepsake.of(handle), chosen)
        probes = bench.probes = self.keys.terms(model).probes
        conditions = conditions_of(handle, facts.chat, chosen, probes, settings.batch_size)
        bench.shelf = UneditedShelf(self._store, conditions)
        made_with = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
        unedited = Unedited(facts.model, facts.fingerprint, text_digest(bench.texts), 0.0, {}, made_with)
        base = self._store.fact(Unedited, unedited.name)
        if base is None or base.measured_with != made_with:
            started = time.monotonic()
            bench.open(policy, probes=probes)
            seconds = (time.monotonic() - started) / max(1, len(bench.texts))
            self._compare(bench)
            found = {name: measurement.as_json() for name, measurement in bench.base.items()}
            self._store.note(replace(unedited, noise=bench.noise, found=found))
            self._store.note(Pace(facts.model, seconds))
        else:
            bench.open(policy, base.measurements, base.noise, probes=probes)
            self._compare(bench)
        if settings.adaptive:
            bench.stop_when_known(policy)
        self._store.note(replace(facts, noise=bench.noise))
        self._store.note(files)
        self._store.note(Software(provenance.of_software()))
        self._store.note(Columns(measures.columns(bench.measures)))
        task.step("measured")
        self._watch(Sign())
        return bench

    def _refuse_other_weights(self, facts: ModelFacts) -> None:
        """A run is of one set of weights and one tokenizer; results of two must not stand in one report."""
        known = self._store.fact(ModelFacts, facts.model)
        if known is None:
            return
        same_weights = known.fingerprint == facts.fingerprint
        if same_weights and known.tokenizer in ("", facts.tokenizer):
            return
        if (known.source, known.revision, known.dtype) != (facts.source, facts.revision, facts.dtype):
            self.keys.forget()  # another model of the same short name, or loaded otherwise: nothing kept applies
            return
        if same_weights:
            what, now, then = "another tokenizer", facts.tokenizer, known.tokenizer
        else:
            what, now, then = "other weights", facts.fingerprint, known.fingerprint
        refused = (
            f"{facts.source} has {what} (fingerprint {now[:12]}) than when this run was begun "
            f"({then[:12]}). Bring that back, or give another --out."
        )
        self._store.note(Unusable(refused))
        raise StoreError(f"{self._store.path.parent}: {refused}")

    def _compare(self, bench: Bench) -> None:
        """Whether a model that was loaded again does what it did at first; otherwise this process is spoilt."""
        assert bench.baseline is not None
        assert bench.baseline.behaviour is not None
        first = self._behaviours.setdefault(bench.handle.identity, bench.baseline.behaviour)
        different = first.differences(bench.baseline.behaviour)
        if different:
            self.spoilt = (
                f"this process cannot be trusted any more: {bench.handle.name} was loaded again, and {different[0]}. "
                "What an editor did here outlives its model. Run the same command again, in a new process: what was "
                "finished is kept."
            )
            raise SpoiltProcessError(self.spoilt)


def _origin(name: str) -> str:
    around, inner = parts(name)
    every = [discovery.origin("editors", inner), *(discovery.origin("regularisers", one) for one in around)]
    return "; ".join(dict.fromkeys(one for one in every if one != discovery.OURS))


def artifacts_for(handle: ModelHandle) -> ArtifactStore:
    """The user's artifacts, and those shipped with a pocket model."""
    folder = model_folder(handle.spec.name)
    shipped = (folder / "artifacts",) if folder else ()
    return ArtifactStore(default_root(), shipped, tokenizer=handle.spelling)
