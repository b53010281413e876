"""Worker: computes what it is given with a model of its own, and gives back records and facts. It knows nothing of Ray.

Its editors run in a process beside it, as in every run (`supervision`): one that hangs, crashes or ends its process
becomes the record of its case, with the same words, and the worker lives on. The worker itself dies only of what
happens to its machine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from editsafety.cluster.work import Brief, Inquiry, KeyQuestion, OrderCheck, Parcel, Portion, Work
from editsafety.errors import DataError, EditSafetyError, SpoiltProcessError, StoreError
from editsafety.progress import Progress
from editsafety.runs.case import Block, Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.fact import RunFact
from editsafety.runs.facts import Known, Unusable, Wanted
from editsafety.runs.folders import EDITS, STORE
from editsafety.runs.store import Store
from editsafety.supervision.labs import Labs, wants_one_process
from editsafety.supervision.laid_out import from_message

LOG = "output.log"
LONGEST = 1 << 16  # bytes of what editors print during one piece of work that are passed on: the last ones
OWN = (Known, Unusable, Wanted)  # facts that are the driver's alone


class Worker:
    """A lab with a store in `place`, an empty folder that is its own, and gives back what it finds piece by piece.

    Raises DataError where the editors' files or the version of this package are not those of the driver.
    """

    def __init__(self, brief: Brief, place: Path) -> None:
        self._plan = from_message(brief.plan)
        if self._plan.digest() != brief.digest:
            raise DataError(
                "an editor's file, a file of hyperparameters or the version of editsafety is another one on this "
                "machine than where the sweep was started. Install and share the same everywhere."
            )
        self._store = Store(place / STORE)
        self._known: dict[tuple[str, str], RunFact] = {}
        for fact in brief.facts:
            self._store.note(fact)
            self._known[fact.kind, fact.name] = fact
        self._log, self._read = place / LOG, 0
        wanted = self._plan.wanted(Wanted(brief.wanted))
        self._labs = Labs(
            self._plan, self._store, Progress.quiet(), wanted, (), 1, self._log, in_process=wants_one_process()
        )

    def do(self, work: Work) -> Parcel:
        """Do a piece of work; before that, the model is looked at, and brought back where it is not what it was.

        Raises StoreError and SpoiltProcessError, after which this worker is of no use.
        """
        started = time.monotonic()
        found = self._labs.computing.verify(work.model)
        parcel = Parcel({}, (), remarks=(found,) if found else ())
        match work:
            case Portion():
                parcel = replace(parcel, records=self._compute(work))
            case OrderCheck():
                self._check_order(work)
            case KeyQuestion():
                self._find_keys(work)
            case Inquiry():
                parcel = self._ask(work, parcel)
        shutil.rmtree(self._store.path.parent / EDITS, ignore_errors=True)  # who shares an edit was in this portion
        seconds = time.monotonic() - started
        return replace(parcel, facts=tuple(self._news()), seconds=seconds, printed=self._printed())

    def close(self) -> None:
        """End the process of the editors."""
        self._labs.close()
        self._store.close()

    def _compute(self, portion: Portion) -> dict[str, CaseRecord]:
        """The records of a portion, an editor at a time; what stands in the way of an editor is noted as a fact."""
        lab, found = self._labs.computing, {}
        blocks: dict[Block, list[Case]] = {}
        for case in portion.cases:
            blocks.setdefault(case.block, []).append(case)
        for block, cases in blocks.items():
            with _noted_by_the_lab():
                keys = [lab.key_of(block).of(case) for case in cases]
                for key in keys * portion.deaths:
                    self._store.start(key)  # the lab gives up what was started too often
                for key, case in zip(keys, cases, strict=True):
                    found[key] = lab.record(case, cases)
        return found

    def _check_order(self, check: OrderCheck) -> None:
        for key, record in check.records.items():
            self._store.put(key, record)
        with _noted_by_the_lab():
            self._labs.computing.same_in_any_order(*check.block)

    def _find_keys(self, question: KeyQuestion) -> None:
        for editor in question.editors:
            with _noted_by_the_lab():
                self._labs.computing.key_of((question.model, editor))

    def _ask(self, inquiry: Inquiry, parcel: Parcel) -> Parcel:
        try:
            answers = self._labs.computing.knows(inquiry.model, inquiry.requests)
        except (StoreError, SpoiltProcessError):
            raise
        except EditSafetyError as error:
            return replace(parcel, refused=str(error))
        return replace(parcel, answers=tuple(answers))

    def _news(self) -> Iterator[RunFact]:
        """The facts that the driver does not have as they are now."""
        for fact in self._store.each_fact():
            place = fact.kind, fact.name
            if not isinstance(fact, OWN) and self._known.get(place) != fact:
                self._known[place] = fact
                yield fact

    def _printed(self) -> str:
        """What editors have printed since this was last asked."""
        if not self._log.is_file():
            return ""
        with self._log.open("rb") as log:
            log.seek(max(self._read, self._log.stat().st_size - LONGEST))
            said = log.read()
            self._read = log.tell()
        return said.decode("utf-8", "replace")


@contextmanager
def _noted_by_the_lab() -> Iterator[None]:
    """What stands in the way of a whole block is a fact by then; only what ends this worker passes through."""
    try:
        yield
    except (StoreError, SpoiltProcessError):
        raise
    except EditSafetyError:
        return
