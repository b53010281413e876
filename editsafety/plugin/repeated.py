"""RepeatedEdit: one edit made again and again, timed by pytest-benchmark and kept for baselines. For `suites/speed`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from editsafety.datasets.request import EditRequest
from editsafety.names import label, slug
from editsafety.plugin.selection import GroupKey
from editsafety.runs.facts import RepeatedCost

if TYPE_CHECKING:
    from editsafety.model.handle import ModelHandle

ROUNDS = 8  # two more than the fewest that can show a difference


@dataclass(frozen=True)
class RepeatedEdit:
    """What one request costs an editor, round by round.

    Where pytest-benchmark times nothing (under xdist, with `--benchmark-disable`) the work is done once, and nothing is
    kept.
    """

    block: GroupKey
    handle: ModelHandle
    request: EditRequest
    benchmark: Any  # the fixture of pytest-benchmark
    keep: Callable[[RepeatedCost], None]

    def time(
        self,
        figure: str,
        work: Callable[[], object],
        within: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Time the work `within` a context, and a plain forward pass before that, round by round; keep both."""
        from editsafety.lab import yardstick

        passes: list[float | None] = []
        with ExitStack() as opened:

            def before() -> None:
                passes.append(yardstick.reading(self.handle))
                opened.enter_context(within())

            self.benchmark.pedantic(work, setup=before, teardown=opened.close, rounds=ROUNDS, warmup_rounds=1)
        if not self.benchmark.disabled:
            of_rounds = [seconds for seconds in passes[1:] if seconds is not None]  # the first is of the warm-up
            self._keep(figure, self.benchmark.stats.stats.data, of_rounds, yardstick.machine(self.handle))

    def weigh(self, work: Callable[[], int | None]) -> None:
        """Keep the bytes that the work says it needed, in rounds of their own, which disturb no time."""
        rounds = [work() for _ in range(1 if self.benchmark.disabled else ROUNDS)]
        known = [peak for peak in rounds if peak is not None]
        self.benchmark.extra_info["peak_bytes"] = max(known, default=None)
        if not self.benchmark.disabled:
            self._keep("memory", known)

    def _keep(self, figure: str, values: Sequence[float], passes: Sequence[float] = (), machine: str = "") -> None:
        names = slug(self.block.model), label(self.block.editor)
        asked = self.request.digest()[:16]
        self.keep(RepeatedCost(*names, figure, asked, tuple(values), tuple(passes), machine))
