"""Mining hard cases: run all single edits of a pool, keep those that collapse, as HardCF was made from COUNTERFACT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from editsafety.checks import ratio
from editsafety.lab import Lab
from editsafety.plan import RunPlan
from editsafety.record import CaseRecord
from editsafety.request import EditRequest
from editsafety.vault import write_atomically


@dataclass(frozen=True)
class Found:
    """What a pool came to: every record, those that collapsed, and the ones kept as requests with ids of their own."""

    screened: tuple[CaseRecord, ...]
    collapsed: tuple[CaseRecord, ...]
    hard: tuple[EditRequest, ...]


def mine(lab: Lab, *, above: float, most: int | None = None) -> Found:
    """Run the plan's cases; those whose edit raises the perplexity more than `above`-fold, or breaks it, are hard.

    Of more than `most`, that many are kept, evenly spread over the pool: not the worst ones, which would flatter.
    """
    records = tuple(lab.record(case) for case in lab.plan.cases)
    collapsed = tuple(record for record in records if (found := ratio(record)) is not None and not found <= above)
    count = len(collapsed) if most is None else min(most, len(collapsed))
    kept = [collapsed[i * len(collapsed) // count] for i in range(count)]
    hard = tuple(replace(record.requests[0], id=f"hardcf-{i:04d}", source="") for i, record in enumerate(kept, start=1))
    return Found(records, collapsed, hard)


def write(path: Path, plan: RunPlan, found: Found, *, above: float) -> None:
    """Write the hard cases as JSON lines, and beside them where they come from."""
    lines = [json.dumps(request.as_json(), ensure_ascii=False, default=list) for request in found.hard]
    write_atomically(path, ("\n".join(lines) + "\n").encode() if lines else b"")
    about = {
        "editor": list(plan.settings.editors),
        "model": list(plan.settings.models),
        "pool": dict(plan.sources),
        "screened": len(found.screened),
        "collapsed": len(found.collapsed),
        "collapsed_above_ratio": above,
        "kept": len(found.hard),
        "seed": plan.settings.seed,
    }
    write_atomically(path.with_suffix(".about.json"), (json.dumps(about, indent=1) + "\n").encode())


def summary(found: Found) -> Sequence[tuple[str, str]]:
    """Name and figure: how many were screened, which subjects collapse, how many were kept."""
    first = [record for record in found.screened if record.notes.get("first_token")]
    hard_first = [record for record in found.collapsed if record.notes.get("first_token")]
    others = f"{len(found.collapsed) - len(hard_first)} of {len(found.screened) - len(first)} collapse"
    return (
        ("screened", str(len(found.screened))),
        ("one-token subject in first place", f"{len(hard_first)} of {len(first)} collapse"),
        ("others", others),
        ("kept", str(len(found.hard))),
    )
