"""Labs: who computes what a run asks for: a supervised process, or this one where somebody looks at the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from editsafety.errors import EditorError, EditSafetyError, ModelError, UsageError
from editsafety.names import label, slug
from editsafety.progress import Progress
from editsafety.runs.case import Block, Case
from editsafety.runs.facts import EditorFacts, Wanted
from editsafety.runs.plan import RunPlan, keep_known
from editsafety.runs.store import Store
from editsafety.supervision.supervised_lab import SupervisedLab

if TYPE_CHECKING:
    from editsafety.lab.lab import Lab

IN_PROCESS = "EDITSAFETY_IN_PROCESS"  # set to 1: as --editsafety-in-process


@dataclass
class Labs:
    """The labs of one run; each is made when it is first asked for."""

    plan: RunPlan
    store: Store
    progress: Progress
    wanted: Sequence[Case]  # the cases that are run
    live: Sequence[Case]  # those whose edits are asked for beside them
    workers: int  # that share the store
    log: Path  # where the supervised process writes what editors print
    in_process: bool  # whether everything is computed here
    _supervised: SupervisedLab | None = field(default=None, init=False)
    _here: Lab | None = field(default=None, init=False)

    @property
    def computing(self) -> Lab | SupervisedLab:
        """The one that computes records."""
        if self.in_process:
            return self.here
        if self._supervised is None:
            self._supervised = SupervisedLab(
                self.plan, self.store, self.progress, wanted=self.wanted, live=self.live, workers=self.workers,
                log=self.log,
            )  # fmt: skip
        return self._supervised

    @property
    def here(self) -> Lab:
        """The one of this process, for whoever looks at the model. Importing it brings torch in."""
        if self._here is None:
            from editsafety.lab.lab import Lab

            self.close()  # one model in memory is enough
            self._here = Lab(
                self.plan, self.store, self.progress, workers=self.workers, wanted=self.wanted or None, live=self.live
            )
        return self._here

    def known_only(self) -> RunPlan:
        """The plan with known facts only, as its settings ask for; who was asked for that is let go of.

        Where a model cannot be asked the plan stays as it is, which is said; whoever runs it will say what is wrong.
        """
        try:
            return keep_known(self.plan, self.store, self.computing.knows, self.progress)
        except (EditorError, ModelError, UsageError) as error:
            self.progress.say(f"no fact is left out, as it could not be found out which ones are known: {error}")
            return keep_known(self.plan, self.store)
        finally:
            self.close()
            self._supervised = self._here = None

    def make_ready(self) -> None:
        """What each of several workers would do for itself, once and in the open, before any of them begins.

        Models are loaded and measured unedited, editors are prepared; workers find in the store of the run, and among
        the artifacts, what was made. For a shipped model that takes no time, and for a block of which a case was run it
        has been done. Who did it is let go of. What stands in the way is left to the workers.
        """
        wanted = self.plan.wanted(self.store.fact(Wanted) or Wanted())
        finished = self.store.finished(wanted)
        begun = {case.block for case in wanted if case.id in finished}
        try:
            for block in dict.fromkeys(case.block for case in wanted):
                if block in begun:
                    self._tell_whose_numbers(block)
                elif not block[0].startswith("pocket-"):
                    with suppress(EditSafetyError):
                        self.computing.make_ready(block)
        finally:
            self.close()
            self._supervised = self._here = None

    def _tell_whose_numbers(self, block: Block) -> None:
        """What is said where an editor is made, of one that was made in a run before: whose numbers it has."""
        facts = self.store.fact(EditorFacts, f"{slug(block[0])}:{label(block[1])}")
        if facts is not None and facts.carried_from is not None:
            self.progress.say(facts.carried_from.announce(facts.editor, facts.model))

    def close(self) -> None:
        """End the supervised process; it is started again when it is needed."""
        if self._supervised is not None:
            self._supervised.close()


def wants_one_process() -> bool:
    """Whether everything is to be computed in this process: EDITSAFETY_IN_PROCESS says so, or there is no POSIX."""
    return os.name != "posix" or os.environ.get(IN_PROCESS, "") not in ("", "0")
