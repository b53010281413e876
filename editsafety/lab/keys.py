"""CaseKeys: what a record is found by in the store: everything that can change it. The policy's limits cannot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from editsafety import __version__, editors, measures
from editsafety.errors import ModelError, StoreError
from editsafety.hyperparameters.carried import Build
from editsafety.judging import stopping
from editsafety.judging.policy import Policy
from editsafety.lab.terms import Terms
from editsafety.names import label, slug
from editsafety.runs.case import Block, Case
from editsafety.runs.facts import BlockKey, ModelFacts, ModelFiles, Unusable
from editsafety.runs.model_files import state_of_files
from editsafety.runs.plan import RunPlan, text_digest
from editsafety.runs.store import Store


class CaseKeys:
    """The keys of a plan's cases; `load` gives the facts of a model that the store does not know yet."""

    def __init__(self, plan: RunPlan, store: Store, load: Callable[[str], ModelFacts]) -> None:
        self._plan, self._store, self._load = plan, store, load
        self._known: dict[Block, BlockKey] = {}
        self._keys: dict[int, tuple[Case, str]] = {}  # by identity: a plan lays each case out once, and asks often
        self._terms: dict[str, Terms] = {}

    def of(self, case: Case) -> str:
        """What the record of a case is found by."""
        known = self._keys.get(id(case))
        if known is None:
            known = self._keys[id(case)] = (case, self.shared(case.block).of(case))
        return known[1]

    def terms(self, model: str) -> Terms:
        """How the courses of a model are walked."""
        if model not in self._terms:
            self._terms[model] = Terms.of(self._plan, model)
        return self._terms[model]

    def shared(self, block: Block) -> BlockKey:
        """What the keys of a block's records share; kept in the store, for those who judge without a model."""
        if block not in self._known:
            model, editor = slug(block[0]), label(block[1])
            single = self._digest(block)
            self._known[block] = BlockKey(model, editor, single, self.terms(block[0]).shared(single))
            self._store.note(self._known[block])
        return self._known[block]

    def forget(self) -> None:
        """Work all of them out anew: a model has other weights than before."""
        self._known.clear()
        self._keys.clear()

    def _digest(self, block: Block) -> str:
        model, editor = block
        settings = self._plan.settings
        facts = self._facts(model)
        build = Build(facts.family, facts.layers, facts.parameters) if facts.layers else None
        hparams = editors.read_hparams(editor, slug(model), settings.hparams_of(editor), build=build)
        measured = measures.needed(Policy.of(settings).measured)
        body = {
            "version": __version__,
            "model": facts.fingerprint,
            "tokenizer": facts.tokenizer,
            "device": facts.device,
            "dtype": facts.dtype,
            "attention": facts.attention,
            "editor": [editor, editors.code_version(editor)],
            "hparams": hparams.model_dump(mode="json"),
            "texts": text_digest(self._plan.texts[model]),
            "seed": settings.seed,
            "batch": settings.batch_size,
            "plain": settings.plain,  # what is computed in another batch is rounded in another way
            **({"chat": facts.chat} if facts.chat else {}),
            **({"adaptive": stopping.ALPHA} if settings.adaptive else {}),
            "measures": {one.name: one.version for one in measured},
        }
        if any(getattr(one, "asks_abilities", False) for one in measured):
            body["probes"] = [repr(probe) for probe in self.terms(model).probes]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def _facts(self, model: str) -> ModelFacts:
        """What is known of a model; it is loaded where nothing is, or where its weights may be others by now."""
        known = self._store.fact(ModelFacts, slug(model))
        if known is None:
            return self._load(model)
        files, now = self._store.fact(ModelFiles, slug(model)), state_of_files(model)
        if not now or (files is not None and files.state == now):
            return known
        try:
            return self._load(model)
        except ModelError as error:
            self._store.note(Unusable(str(error)))
            raise StoreError(f"{self._store.path.parent}: the model has changed since. {error}") from error
