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
    """What a pool came to: every record, and the collapsing ones as requests of their own."""

    screened: tuple[CaseRecord, ...]
    hard: tuple[EditRequest, ...]


def mine(lab: Lab, *, above: float) -> Found:
    """Run the plan's cases; keep the requests whose edit raises the perplexity more than `above`-fold or breaks it."""
    records = [lab.record(case) for case in lab.plan.cases]
    kept = [record for record in records if (found := ratio(record)) is not None and not found <= above]
    hard = tuple(replace(record.requests[0], id=f"hardcf-{i:04d}", source="") for i, record in enumerate(kept, start=1))
    return Found(tuple(records), hard)


def write(path: Path, plan: RunPlan, found: Found, *, above: float) -> None:
    """Write the hard cases as JSON lines, and beside them where they come from."""
    lines = [json.dumps(request.as_json(), ensure_ascii=False, default=list) for request in found.hard]
    write_atomically(path, ("\n".join(lines) + "\n").encode() if lines else b"")
    about = {
        "editor": list(plan.settings.editors),
        "model": list(plan.settings.models),
        "pool": dict(plan.sources),
        "screened": len(found.screened),
        "kept": len(found.hard),
        "kept_above_ratio": above,
        "seed": plan.settings.seed,
    }
    write_atomically(path.with_suffix(".about.json"), (json.dumps(about, indent=1) + "\n").encode())


def summary(found: Found) -> Sequence[tuple[str, str]]:
    """Name and figure: how many were screened, kept, and how their subjects look."""
    first = [r for r in found.screened if r.notes.get("first_token")]
    kept_ids = {request.subject + request.prompt for request in found.hard}
    kept_first = [r for r in first if r.requests[0].subject + r.requests[0].prompt in kept_ids]
    return (
        ("screened", str(len(found.screened))),
        ("kept", str(len(found.hard))),
        ("one-token subject in first place", f"{len(kept_first)} of {len(first)} collapse"),
        ("others", f"{len(found.hard) - len(kept_first)} of {len(found.screened) - len(first)} collapse"),
    )
