"""Fuzz for as long as wanted: `python -m tests.fuzz --minutes 30 [--target deltas]`.

Each round tries other files. A finding is reduced to a small one and written below `--out`, and the search goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz import checking
from tests.fuzz.targets import TARGETS, Files, Target

ROUND = 200  # files of one target before the next one has its turn


@dataclass
class Tally:
    """What was tried of a target."""

    files: int = 0
    taken: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: Counter[str] = field(default_factory=Counter)  # by the place that raised


def main() -> int:
    """Go round the targets until the time is over; 1 when there was a finding."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--target", choices=[target.name for target in TARGETS], action="append")
    options.add_argument("--seed", type=int, default=None, help="of the first round (random)")
    options.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder of what is found")
    given_ = options.parse_args()
    first = random.randrange(2**32) if given_.seed is None else given_.seed
    chosen = [target for target in TARGETS if not given_.target or target.name in given_.target]
    tallies = {target.name: Tally() for target in chosen}
    until, number = time.monotonic() + 60 * given_.minutes, first
    say(f"seed {first}, {given_.minutes:g} minutes: {', '.join(tallies)}")
    while time.monotonic() < until:
        for target in chosen:
            if time.monotonic() < until:
                fuzz(target, number, tallies[target.name], given_.out, until)
        number += 1
        given_.out.mkdir(parents=True, exist_ok=True)
        told = {name: {**asdict(tally), "findings": dict(tally.findings)} for name, tally in tallies.items()}
        (given_.out / "tally.json").write_text(json.dumps({"seed": first, **told}, indent=1))
    for name, tally in tallies.items():
        say(f"{name}: {tally.files} files, {tally.taken} taken, {tally.refused} refused, {tally.seconds:.0f} s")
        for place, times in tally.findings.items():
            say(f"    FOUND {times}x {place}")
    return int(any(tally.findings for tally in tallies.values()))


def fuzz(target: Target, number: int, tally: Tally, out: Path, until: float) -> None:
    """One round of a target."""
    last: list[Files] = []
    known = frozenset(tally.findings)  # what was found in an earlier round does not end this one
    began = time.monotonic()

    def tried(files: Files) -> None:
        if time.monotonic() > until:
            return
        tally.files += 1
        try:
            taken = checking.check(target, files)
        except Exception as error:
            if (where := place_of(error)) in known:
                tally.findings[where] += 1
                return
            last[:] = [files]
            raise
        tally.taken += taken
        tally.refused += not taken

    try:
        searched(target, number, tried)()
    except Exception as error:  # the boundary: what is looked for is that anything may be raised
        where = place_of(error)
        tally.findings[where] += 1
        if tally.findings[where] == 1:
            keep(out / target.name, tally, last[-1], error)
            say(f"{target.name}: {where}")
    tally.seconds += time.monotonic() - began


def searched(target: Target, number: int, tried: Callable[[Files], None]) -> Callable[[], None]:
    """The search through a target's files, others for every number."""
    wanted = settings(
        max_examples=ROUND,
        derandomize=False,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )

    def each(files: Any) -> None:
        tried(files)

    return seed(number)(wanted(given(files=target.files)(each)))


def keep(folder: Path, tally: Tally, files: Files, error: Exception) -> None:
    """Write a finding: the files, and what they led to."""
    place = folder / str(len(tally.findings))
    place.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (place / name).write_bytes(data)
    (place / "traceback.txt").write_text("".join(traceback.format_exception(error)))


def place_of(error: BaseException) -> str:
    """What was raised, and by which of our lines."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "editsafety" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}"


def say(text: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
