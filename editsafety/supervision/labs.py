"""Labs: who computes what a run asks for: a supervised process, or this one where somebody looks at the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from editsafety.errors import EditorError, ModelError, UsageError
from editsafety.progress import Progress
from editsafety.runs.case import Case
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

        Where a model cannot be asked the plan stays as it is: whoever runs it will say what is wrong with that model.
        """
        try:
            return keep_known(self.plan, self.store, self.computing.knows, self.progress)
        except (EditorError, ModelError, UsageError):
            return keep_known(self.plan, self.store)
        finally:
            self.close()
            self._supervised = self._here = None

    def close(self) -> None:
        """End the supervised process; it is started again when it is needed."""
        if self._supervised is not None:
            self._supervised.close()


def wants_one_process() -> bool:
    """Whether everything is to be computed in this process: EDITSAFETY_IN_PROCESS says so, or there is no POSIX."""
    return os.name != "posix" or os.environ.get(IN_PROCESS, "") not in ("", "0")
