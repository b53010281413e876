"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from editsafety.escaping import line
from editsafety.numbers import duration, pace

Mode = Literal["auto", "quiet"]
EVERY = 10.0  # seconds between plain lines


class Task:
    """One piece of work with a known number of steps. Call `step` after each."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def step(self, note: str = "", count: int = 1) -> None:
        """So many more steps are done; `note` says something about them (the last loss, the last case)."""
        self.done += count


class Progress:
    """Where progress is shown. `stream` is usually standard error."""

    def __init__(self, stream: TextIO, mode: Mode = "auto") -> None:
        self.stream = stream
        self.mode = mode
        self._above: Callable[[str], None] | None = None  # writes a line above a bar that is shown

    @classmethod
    def quiet(cls) -> Progress:
        """Progress that shows nothing."""
        return cls(sys.stderr, "quiet")

    def say(self, text: str) -> None:
        """A line that stays, about what is coming; nothing when quiet."""
        if self.mode == "quiet":
            return
        if self._above is not None:
            self._above(line(text))
        else:
            print(line(text), file=self.stream, flush=True)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        """Show a piece of work while the block runs."""
        if self.mode == "quiet" or total == 0:
            yield Task(total)
        elif self.stream.isatty():
            with _bar(self.stream, label, total) as (task, self._above):
                try:
                    yield task
                finally:
                    self._above = None
        else:
            yield _Lines(self.stream, label, total)


class _Lines(Task):
    """A line at the start of the work, every ten seconds, and at the end."""

    def __init__(self, stream: TextIO, label: str, total: int) -> None:
        super().__init__(total)
        self._stream, self._label = stream, line(label)
        self._start = self._last = time.monotonic()
        print(f"{self._label}: 0 of {total}", file=stream, flush=True)

    def step(self, note: str = "", count: int = 1) -> None:
        super().step(note, count)
        now = time.monotonic()
        if self.done == self.total or now - self._last >= EVERY:
            self._last = now
            shown = [f"{self._label}: {self.done} of {self.total}"]
            if self.done:
                each = max(now - self._start, 1e-9) / self.done
                shown.append(pace(1 / each))
                shown += [f"{duration((self.total - self.done) * each)} left"] if self.done < self.total else []
            print(", ".join([*shown, *([line(note)] if note else [])]), file=self._stream, flush=True)


@contextmanager
def _bar(stream: TextIO, label: str, total: int) -> Iterator[tuple[Task, Callable[[str], None]]]:
    """The task, and what writes a line above its bar."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(table_column=Column(min_width=7)),  # the bar makes room for it
        TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        handle = bar.add_task(line(label), total=total, rate="", note="")

        class Bar(Task):
            def step(self, note: str = "", count: int = 1) -> None:
                super().step(note, count)
                speed = bar.tasks[0].speed
                bar.update(handle, advance=count, rate=pace(speed) if speed else "", note=line(note))

        def above(text: str) -> None:
            bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield Bar(total), above
