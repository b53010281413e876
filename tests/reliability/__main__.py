"""One figure of docs/reliability.md: `python -m tests.reliability NAME [--times N] [--out FOLDER]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.trials import Result, Trials


@dataclass(frozen=True)
class Figure:
    """A figure: how often it is tried, and what the trials come to."""

    times: int
    trial: Callable[[Path, int], Result]
    told: Callable[[list[Result]], Result]


def main() -> int:
    """Make the trials that are missing and tell what all come to; 1 where something was not as promised."""
    options = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    options.add_argument("figure", choices=sorted(FIGURES))
    options.add_argument("--times", type=int, default=None, help="trials (those of the documentation)")
    options.add_argument("--out", type=Path, default=Path("reports/reliability"), help="folder of the trials")
    given = options.parse_args()
    figure = FIGURES[given.figure]
    place = given.out.resolve()
    trials = Trials(place / f"{given.figure}.jsonl")
    made = trials.make(given.times or figure.times, lambda number: figure.trial(place, number))
    told = figure.told(made)
    sys.stdout.write(json.dumps({"figure": given.figure, "trials": len(made), **told}, indent=1) + "\n")
    return int(not told["as_promised"])


def _restore(_: Path, number: int) -> Result:
    from tests.reliability import inside

    return inside.restore(number)


def _order(_: Path, number: int) -> Result:
    from tests.reliability import inside

    return inside.order(number)


def _alarms(_: Path, number: int) -> Result:
    from tests.reliability import inside

    return inside.alarms(number)


def _seal(_: Path, number: int) -> Result:
    from tests.reliability import costs

    return costs.seal(number)


def _outside(place: Path) -> Any:
    from tests.reliability.outside import Outside

    if place not in _KNOWN:
        _KNOWN[place] = Outside(place / "runs")
    return _KNOWN[place]


_KNOWN: dict[Path, Any] = {}  # the undisturbed run is made once
DETECTED = ("rome", "c_rome")


def _total(made: list[Result], field: str) -> int:
    return sum(int(one[field]) for one in made)


def _of_restore(made: list[Result]) -> Result:
    edits, different = _total(made, "edits"), _total(made, "different")
    prints = sorted({one["sha256"] for one in made})
    right = not different and len(prints) == 1 and not any(one["moved"] for one in made)
    return {"edits": edits, "not_restored": different, "sha256": prints, "as_promised": right}


def _of_order(made: list[Result]) -> Result:
    different = sorted({name for one in made for name in one["different"]})
    return {"edits": _total(made, "edits"), "different": different, "as_promised": not different}


def _of_alarms(made: list[Result]) -> Result:
    ratios = [one["ratio"] for one in made]
    raised = [one for one in made if one["alarms"] or not one["no_op"] or one["locality"] != 1.0]
    return {
        "false_alarms": len(raised),
        "smallest_ratio": min(ratios),
        "largest_ratio": max(ratios),
        "as_promised": not raised,
    }


def _of_kills(made: list[Result]) -> Result:
    same = sum(one["same"] for one in made)
    late = sum(one["too_late"] for one in made)
    return {"same_report": same, "ended_before_the_kill": late, "as_promised": same == len(made)}


def _of_writes(made: list[Result]) -> Result:
    wrong = [one for one in made if one["quiet"] or one["traceback"] or not one["same"]]
    failed = sum(one["first"] not in (0, 10, 11) for one in made)
    return {"said_so": failed, "wrong": wrong, "as_promised": not wrong}


def _of_detection(made: list[Result]) -> Result:
    rome, mended = made
    right = rome["hard_collapsed"] == rome["hard"] and not rome["normal_collapsed"]
    right = right and not mended["hard_collapsed"] and not mended["normal_collapsed"]
    return {"editors": made, "as_promised": right}


def _of_seal(made: list[Result]) -> Result:
    shares = {one["editor"]: round(one["share"], 4) for one in made}
    reading = {one["editor"]: round(one["share_of_reading"], 4) for one in made}
    return {"shares": shares, "shares_of_reading": reading, "as_promised": max(shares.values()) < MOST_FOR_THE_SEAL}


MOST_FOR_THE_SEAL = 0.03  # of a case
FIGURES = {
    "restore": Figure(100, _restore, _of_restore),
    "order": Figure(20, _order, _of_order),
    "alarms": Figure(100, _alarms, _of_alarms),
    "kills": Figure(50, lambda place, number: _outside(place).kill(number), _of_kills),
    "writes": Figure(20, lambda place, number: _outside(place).write(number), _of_writes),
    "seal": Figure(7, _seal, _of_seal),
    "detection": Figure(2, lambda place, number: _outside(place).detect(DETECTED[number]), _of_detection),
}


if __name__ == "__main__":
    sys.exit(main())
