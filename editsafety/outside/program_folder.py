"""ProgramFolder: a temporary folder and the programs that are run in it. Nothing of either outlives this process.

A supervised lab is stopped by SIGKILL, which no `finally` sees; so a keeper, a process of its own, ends the programs
and removes the folder when this process is gone, however it went (`keeper`).
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from editsafety.errors import EditorError, masked

KEEPER = Path(__file__).with_name("keeper.py")
LOOK = 0.05  # seconds between two looks at whether a program has ended
TAIL = 4000  # bytes of its output that are kept
LINES = 10  # of them, the last ones, that are told
CHUNK = 1 << 16
DRAINED = 64  # chunks that are taken in after the end: more than any pipe holds


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended."""

    # Its exit status, or minus the number of the signal that ended it.
    status: int
    seconds: float
    # Its last lines, of standard output and standard error together.
    said: str
    # Whether it was stopped because it took too long.
    late: bool = False

    @property
    def how(self) -> str:
        """In words: "ended with exit status 3"."""
        if self.late:
            return f"did not end within {self.seconds:.4g} s and was stopped"
        if self.status >= 0:
            return f"ended with exit status {self.status}"
        known = -self.status in set(signal.Signals)
        return f"was ended by {signal.Signals(-self.status).name if known else f'signal {-self.status}'}"


class ProgramFolder:
    """A folder that is there until this is dropped, or its process ends in whatever way. Raises EditorError."""

    def __init__(self) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="editsafety-program-"))
            words = [sys.executable, "-I", "-S", str(KEEPER), str(self.folder)]
            # In a session of its own: neither Ctrl-C nor the end of our group reaches it.
            self._keeper = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EditorError(f"no temporary folder can be had ({error}). Make room, or set TMPDIR.") from error
        self.close = weakref.finalize(self, _dismiss, self._keeper)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty folder for one call, gone after the block."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="call-", ignore_cleanup_errors=True) as place:
            yield Path(place)

    def run(self, words: Sequence[str], limit: float | None) -> ProgramEnd:
        """Run a program to its end, or for so many seconds; all that it started ends with it.

        Its output is read as it comes and only the end of it kept. Raises EditorError when it cannot be started.
        """
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0,
                preexec_fn=self._enlist,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise EditorError(f"{words[0]} cannot be started: {error}.") from error
        assert process.stdout is not None
        tail, late = _Tail(process.stdout.fileno()), False
        with process.stdout:
            try:
                while process.poll() is None and not late:
                    tail.read(LOOK)
                    late = limit is not None and time.monotonic() - started > limit
            finally:
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)  # it may have left others
                process.wait()
                self._tell(f"-{process.pid}")
            tail.drain()
        return ProgramEnd(process.returncode, time.monotonic() - started, tail.lines(), late)

    def _enlist(self) -> None:
        """In the process that is to be the program: the owner could be interrupted between starting and noting it."""
        assert self._keeper.stdin is not None
        with suppress(OSError):
            os.write(self._keeper.stdin.fileno(), f"+{os.getpid()}\n".encode())

    def _tell(self, line: str) -> None:
        assert self._keeper.stdin is not None
        with suppress(OSError):  # a keeper that somebody ended keeps nothing, but the edit is not at fault
            self._keeper.stdin.write(f"{line}\n".encode())
            self._keeper.stdin.flush()


class _Tail:
    """The end of what comes through a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._kept, self._over = descriptor, b"", False
        os.set_blocking(descriptor, False)

    def read(self, patience: float) -> bool:
        """Take in what is there, waiting at most so many seconds for it; whether anything came."""
        if self._over:  # it closed its output and goes on
            time.sleep(patience)
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            if not selector.select(patience):
                return False
        chunk = os.read(self._descriptor, CHUNK)
        self._over = not chunk
        self._kept = (self._kept + chunk)[-TAIL:]
        return bool(chunk)

    def drain(self) -> None:
        """Take in what is left in the pipe; whoever still holds its other end is not waited for."""
        for _ in range(DRAINED):
            if self._over or not self.read(0.0):
                break

    def lines(self) -> str:
        """The last lines, without empty ones, joined by " / "."""
        lines = self._kept.decode("utf-8", "replace").replace("\r", "\n").splitlines()
        return masked(" / ".join([line.strip() for line in lines if line.strip()][-LINES:]))


def _dismiss(keeper: subprocess.Popen[bytes]) -> None:
    """Let the keeper do its work, and wait for it."""
    assert keeper.stdin is not None
    with suppress(OSError):
        keeper.stdin.close()
    keeper.wait()
