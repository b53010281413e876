"""Sweep: the driver of a run on a cluster. It lays out the plan, deals cases out, and alone writes the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from editsafety.cluster.crew import Crew, CrewNews
from editsafety.cluster.dealing import CaseDealer, Dealer, Dealt, QueueDealer, Single
from editsafety.cluster.joined import JoinedFacts
from editsafety.cluster.work import Brief, Inquiry, KeyQuestion, OrderCheck, Parcel
from editsafety.datasets.request import EditRequest
from editsafety.errors import ClusterError, ModelError, StoreError
from editsafety.names import label, slug
from editsafety.progress import Progress
from editsafety.runs.case import Block, Case
from editsafety.runs.fact import RunFact
from editsafety.runs.facts import (
    BlockKey,
    EditorFacts,
    Ended,
    ModelFacts,
    ModelFiles,
    OrderFacts,
    Pace,
    Unedited,
    Unusable,
    Wanted,
)
from editsafety.runs.plan import RunPlan, keep_known, models_to_ask
from editsafety.runs.store import DEATHS, Store
from editsafety.supervision.laid_out import as_message

IN_A_ROW = 4 * DEATHS  # workers that die, one after the other, and nothing comes back: it is not the cases
PASSED_ON = (BlockKey, ModelFacts, ModelFiles, Pace, Unedited)  # what a worker need not find out again


class Sweep:
    """Computes the single edits, controls and order checks of a plan by a crew.

    The store holds whatever was finished, whenever this is stopped; the same sweep on the same store goes on.
    """

    def __init__(self, plan: RunPlan, store: Store, crew: Crew, progress: Progress) -> None:
        self.plan, self._store, self._crew, self._progress = plan, store, crew, progress
        self._joined = JoinedFacts(store)
        self._brief = brief_of(plan, ())
        self._fallen = 0  # deaths since anything came back

    def run(self) -> RunPlan:
        """Compute what is missing; the plan as it was run, with known facts only where that is asked for.

        Raises ClusterError where workers die one after the other, StoreError where machines do not agree or results
        cannot be kept, DataError where a machine has other files. What was finished until then is kept.
        """
        self._store.note(Unusable())
        self._store.note(Ended(interrupted=True))
        try:
            self.plan = self._known_only()
            wanted = list({case.id: case for case in (*self.plan.controls, *self.plan.cases)}.values())
            self._store.note(Wanted(tuple(sorted(case.id for case in wanted))))
            self._brief = brief_of(self.plan, wanted)
            self._renew_keys()
            self._compute(wanted)
            self._check_orders()
        finally:
            self._crew.dismiss()
        return self.plan

    def is_whole(self) -> bool:
        """Whether every case that is wanted has a result."""
        wanted = self.plan.wanted(self._store.facts().asked)
        return len(self._store.finished(wanted)) == len(wanted)

    def _known_only(self) -> RunPlan:
        """The plan with known facts only, where its settings ask for that; a worker asks the models."""
        if not models_to_ask(self.plan.settings):
            return self.plan
        try:
            return keep_known(self.plan, self._store, self._ask, self._progress)
        except ModelError:  # whoever runs it will say what is wrong with that model
            return keep_known(self.plan, self._store)
        finally:
            self._crew.dismiss()  # those who come now are told the plan as it is then

    def _ask(self, model: str, requests: Sequence[EditRequest]) -> Sequence[bool]:
        parcel = self._answer(Inquiry(model, tuple(requests)))
        if parcel.refused:
            raise ModelError(parcel.refused)
        return parcel.answers

    def _answer(self, question: Single) -> Parcel:
        """What one worker gives back. Raises ClusterError where each that is asked dies."""
        heard: list[Parcel] = []
        dealer = QueueDealer([question])
        self._work_off(dealer, heard.append)
        if dealer.given_up:
            raise ClusterError(f"{slug(question.model)}: {DEATHS} workers died when they were asked about it.")
        return heard[0]

    def _renew_keys(self) -> None:
        """Look whether results of an earlier session are of the models and editors as they are now."""
        keys = self._store.facts().keys
        for model in dict.fromkeys(case.model for case in self.plan.cases):
            editors = [editor for one, editor in self.plan.blocks if one == model]
            if known := tuple(editor for editor in editors if (slug(model), label(editor)) in keys):
                self._answer(KeyQuestion(model, known))

    def _compute(self, wanted: Sequence[Case]) -> None:
        """Every case without a result; those of an editor that cannot be run stay so."""
        finished = self._store.finished(wanted)
        with self._progress.task("cases", len(wanted)) as task:
            for name in finished:
                task.step(name)

            def count(parcel: Parcel) -> None:
                for record in parcel.records.values():
                    task.step(record.case)

            self._work_off(CaseDealer([one for one in wanted if one.id not in finished], self._crew.size), count)

    def _check_orders(self) -> None:
        """Whether results depend on the order of edits, where that is not known yet and both cases have a result."""
        dealer = QueueDealer(self._order_checks())
        self._work_off(dealer, lambda parcel: None)
        for check in dealer.given_up:
            (names, *_) = ((record.model, record.editor) for record in check.records.values())
            trouble = f"{DEATHS} workers died, one after the other, while the order of edits was checked"
            key = self._store.facts().keys[names]
            self._store.note(OrderFacts(*names, len(check.records), (), key.single, trouble))

    def _order_checks(self) -> Iterator[OrderCheck]:
        facts = self._store.facts()
        blocks: dict[Block, list[Case]] = {}
        for case in self.plan.cases:
            blocks.setdefault(case.block, []).append(case)
        for block, cases in blocks.items():
            names = slug(block[0]), label(block[1])
            key, known = facts.keys.get(names), facts.orders.get(names)
            if key is None or (known is not None and known.key == key.single):
                continue
            ends = {key.of(case): case for case in (cases[0], cases[-1])}
            records = {one: record for one in ends if (record := self._store.record(one)) is not None and record.ended}
            if len(records) == len(ends):
                yield OrderCheck(block, records)

    def _work_off(self, dealer: Dealer[Dealt], took: Callable[[Parcel], None]) -> None:
        """Let the crew do all that a dealer has; `took` hears of each parcel once it is in the store."""
        at: dict[str, Dealt] = {}
        while dealer.left or at:
            while self._crew.staff < min(self._crew.size, dealer.left + len(at)):
                self._crew.hire(replace(self._brief, facts=tuple(self._passed_on())))
            for worker in self._crew.idle:
                if (work := dealer.deal(worker)) is not None:
                    at[worker] = work
                    self._crew.give(worker, work)
            heard = self._crew.hear()
            if heard is None:
                continue
            work = at.pop(heard.worker, None)
            if heard.parcel is None:
                self._mourn(heard)
                if work is not None:
                    dealer.lost(work)
            else:
                self._keep(heard.worker, heard.parcel)
                if work is not None:
                    self._fallen = 0
                    dealer.took(work, heard.parcel.seconds)
                    took(heard.parcel)

    def _mourn(self, heard: CrewNews) -> None:
        """A worker died. Raises ClusterError where nothing but deaths is heard of."""
        self._fallen += 1
        self._progress.say(f"{heard.worker} died: {heard.how}; another one takes what it had")
        if self._fallen >= IN_A_ROW:
            raise ClusterError(
                f"{self._fallen} workers died one after the other and gave nothing back; the last one: {heard.how}. "
                "What was finished is kept; give them more memory (--workers, --cpus-per-worker), and run again."
            )

    def _keep(self, worker: str, parcel: Parcel) -> None:
        """Put what a worker found into the store. Raises StoreError where it does not fit to what others found."""
        if parcel.printed:
            with (self._store.path.parent / f"output-{worker}.log").open("a", encoding="utf-8") as log:
                log.write(parcel.printed)
        if parcel.trouble:
            raise StoreError(f"{worker}: {parcel.trouble}")
        for said in parcel.remarks:
            self._progress.say(f"{worker}: {said}")
        for fact in parcel.facts:
            new = self._joined.take(worker, fact)
            if new and isinstance(fact, EditorFacts) and fact.carried_from is not None:
                self._progress.say(fact.carried_from.announce(fact.editor, fact.model))
        for key, record in parcel.records.items():
            self._store.put(key, record)

    def _passed_on(self) -> Iterator[RunFact]:
        return (fact for fact in self._store.each_fact() if isinstance(fact, PASSED_ON))


def brief_of(plan: RunPlan, wanted: Iterable[Case], facts: Iterable[RunFact] = ()) -> Brief:
    """What workers have to know of a plan of which these cases are wanted."""
    names = tuple(case.id for case in wanted)
    return Brief(as_message(plan), plan.digest(), names, str(Path.cwd()), tuple(facts))
