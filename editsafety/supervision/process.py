"""The process of a lab, seen from outside: how it is started, spoken with, stopped, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, BinaryIO

from editsafety.errors import StoreError
from editsafety.supervision.deaths import Death

# The child sees modules where its parent does: a conftest.py may have added folders.
ENTRY = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from editsafety.supervision.child import main; main()"
LOOK = 0.2  # seconds between two looks at whether it still lives
FAREWELL = 5.0  # seconds to end by itself, and to write its stack
TAIL = 2000  # bytes of its last words
# What every message has one of.
SAID = frozenset({"sign", "say", "task", "step", "done", "answer", "error", "spoilt"})

Message = dict[str, Any]


class ProcessDied(Exception):
    """The process ended, or was stopped, while an answer was waited for."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.sentence)
        self.death = death


class LabProcess:
    """A Python process that runs `child.main`, in a process group of its own: a terminal's Ctrl-C does not reach it.

    What it and the editors in it write goes to the file `log`. It ends when this process does, whatever the way.
    Raises StoreError when the log cannot be written.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._here, there = Pipe()
        lives, self._life = os.pipe()  # the child sees its end closed when we are gone
        self._stack: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this)
        self._last_dump = ""
        descriptors = (there.fileno(), lives, self._stack.fileno())
        try:
            with log.open("ab") as out:
                self._said = out.tell()
                self._process = _started(descriptors, out)
        except OSError as error:
            self._let_go()
            raise StoreError(f"{log}: what editors print cannot be written there ({error}).") from error
        finally:
            there.close()
            os.close(lives)

    def tell(self, message: Message) -> None:
        """Send a message. A process that is gone does not hear it; the next `hear` says so."""
        with suppress(OSError):
            self._here.send_bytes(json.dumps(message).encode())

    def hear(self, patience: float | None) -> Message | None:
        """The next message; None when none came in so many seconds (None: wait). Raises ProcessDied."""
        until = None if patience is None else time.monotonic() + patience
        while True:
            left = LOOK if until is None else min(LOOK, max(0.0, until - time.monotonic()))
            ended = self._process.poll() is not None  # looked at first: its last messages are still heard
            try:
                if self._here.poll(left):
                    return self._understood(self._here.recv_bytes())
            except (EOFError, OSError):
                ended = self._has_ended()
            if ended:
                raise ProcessDied(self._post_mortem())
            if until is not None and time.monotonic() >= until:
                return None

    def _understood(self, said: bytes) -> Message:
        """A message. Raises ProcessDied for anything else: who speaks so was tampered with, and another was not."""
        try:
            message = json.loads(said)
        except (RecursionError, ValueError):
            message = None
        if isinstance(message, dict) and len(message.keys() & SAID) > 0:
            return message
        self.kill()
        raise ProcessDied(Death("died", "its process said what no answer is, and was stopped", from_outside=True))

    def stop_late(self, limit: float) -> Death:
        """Stop it because it takes too long; where it was then."""
        with suppress(OSError):
            self._process.send_signal(signal.SIGUSR1)  # faulthandler writes all stacks, whatever Python is doing
        until = time.monotonic() + FAREWELL
        before = ""
        while not (dump := self._dump()) or dump != before:  # until it has been written whole
            if self._process.poll() is not None or time.monotonic() > until:
                break
            before = dump
            time.sleep(0.05)
        self.kill()
        return Death.late(limit, dump)

    def kill(self) -> None:
        """End it at once, and all that it started."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._let_go()

    def close(self) -> None:
        """Let it end by itself; kill it when it does not."""
        self._here.close()
        self._has_ended()
        self.kill()

    def last_words(self) -> str:
        """The last line that it or an editor wrote: what went wrong when it could not even start."""
        with self._log.open("rb") as log:
            log.seek(max(self._said, self._log.stat().st_size - TAIL))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _has_ended(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL)
        return self._process.poll() is not None

    def _post_mortem(self) -> Death:
        self.kill()  # it may have left others
        return Death.of(self._process.returncode, self._dump())

    def _dump(self) -> str:
        if self._stack.closed:
            return self._last_dump
        self._stack.seek(0)
        return self._stack.read().decode("utf-8", "replace")

    def _let_go(self) -> None:
        if not self._stack.closed:
            self._last_dump = self._dump()
            self._stack.close()
            self._here.close()
            os.close(self._life)


def _started(descriptors: tuple[int, ...], out: BinaryIO) -> subprocess.Popen[bytes]:
    warnings = [f"-W{given}" for given in sys.warnoptions]
    words = [sys.executable, "-u", *warnings, "-c", ENTRY, json.dumps(sys.path), *map(str, descriptors)]
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=descriptors, process_group=0
    )
