"""Figures that are found from outside, with real processes: detection, kills, writes that fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.reliability.trials import Result
from tests.system.commands import ROOT, without_times

SMALL = (
    *("run", "--model", "pocket-neo", "--editor", "c_rome", "--editor", "ft", "--limit", "2", "--texts", "8"),
    *("--controls", "1", "--device", "cpu"),
)
BUFFERS = (1 << 12, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18, 1 << 20, 1 << 22)  # how large a file may become
FAILING = """
import errno, os, sys
at, real, count = {at}, os.fsync, [0]
def fsync(handle):
    count[0] += 1
    if count[0] == at:
        raise OSError(errno.ENOSPC, "No space left on device")
    return real(handle)
os.fsync = fsync
from editsafety.cli import main
main()
"""
LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({at}, {at}))
from editsafety.cli import main
main()
"""


@dataclass(frozen=True)
class Outside:
    """Runs of one small command in folders of their own."""

    place: Path

    @cached_property
    def expected(self) -> tuple[int, Any, float]:
        """Exit code, report and seconds of a run that nobody disturbs."""
        folder = self.place / "undisturbed"
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        code = self._typed(folder).wait()
        return code, told(folder), time.monotonic() - began

    def kill(self, number: int) -> Result:
        """Kill the run at a random time, every other time with all its processes; then give the same command."""
        code, report, seconds = self.expected
        folder = self.place / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        after = random.Random(number).uniform(0.3, 1.1 * seconds)
        process = self._typed(folder)
        try:
            process.wait(after)
            survived = True
        except subprocess.TimeoutExpired:
            survived = False
            (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
        again = self._typed(folder).wait()
        equal = again == code and told(folder) == report
        return {"after": round(after, 2), "all": bool(number % 2), "too_late": survived, "same": equal, "code": again}

    def write(self, number: int) -> Result:
        """Let the n-th flush to disk fail, or files be limited in size; then give the same command without that."""
        code, report, _ = self.expected
        folder = self.place / "failed"
        shutil.rmtree(folder, ignore_errors=True)
        limited = number < len(BUFFERS)
        at = BUFFERS[number] if limited else number - len(BUFFERS) + 1
        process = self._typed(folder, program=("-c", (LIMITED if limited else FAILING).format(at=at)))
        _, said = process.communicate()
        first, whole = process.returncode, told(folder) == report
        again = self._typed(folder).wait()
        return {
            "what": "size" if limited else "flush",
            "at": at,
            "first": first,
            "quiet": first == code and not whole,  # looked as if all were well, and was not
            "traceback": "Traceback" in said,
            "same": again == code and told(folder) == report,
        }

    def detect(self, editor: str) -> Result:
        """How many of the shipped hard and normal cases of the pocket model an editor collapses."""
        folder = self.place / f"detection-{editor}"
        words = ("run", "--model", "pocket-neo", "--editor", editor, "--device", "cpu")
        self._typed(folder, words=words).wait()
        return counted(json.loads((folder / "report.json").read_text()), editor)

    def _typed(
        self, folder: Path, *, program: tuple[str, ...] = ("-m", "editsafety"), words: tuple[str, ...] = SMALL
    ) -> subprocess.Popen[str]:
        self.place.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [sys.executable, *program, *words, "--out", str(folder)],
            cwd=self.place,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program[0] == "-c" else subprocess.DEVNULL,
            start_new_session=True,
        )


def told(folder: Path) -> Any:
    """The report of a run without times; None where there is none."""
    path = folder / "report.json"
    if not path.is_file():
        return None
    body = without_times(json.loads(path.read_text()))
    return json.loads(json.dumps(body).replace(folder.name, "FOLDER"))


def counted(body: dict[str, Any], editor: str) -> Result:
    """Cases and collapses of an editor in a report, by stream."""
    (group,) = [one for one in body["groups"] if one["editor"] == editor]
    result: Result = {"editor": editor}
    for stream in ("hard", "normal"):
        cases = [case for case in group["cases"] if case["stream"] == stream]
        result[stream] = len(cases)
        result[f"{stream}_collapsed"] = sum(case["verdict"] == "COLLAPSE" for case in cases)
    return result
