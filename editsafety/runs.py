"""Run folders: where a run keeps its store and its report, and how an interrupted run is found again. No torch here."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from editsafety.plan import RunPlan, slug
from editsafety.vault import write_atomically

STORE, PLAN = "store.sqlite", "plan.json"


def choose(plan: RunPlan, reports: Path, out: Path | None = None) -> Path:
    """The folder of a run: `out` when given, else the newest unfinished run of the same plan, else a new one.

    Nothing is written yet.
    """
    if out is not None:
        return out
    for folder in sorted(reports.glob(f"*/{PLAN}"), reverse=True):
        try:
            about = json.loads(folder.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if about.get("digest") == plan.digest() and not about.get("finished"):
            return folder.parent
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    return reports / f"{stamp}-{'-'.join(dict.fromkeys(slug(model) for model in plan.settings.models))}"


def begin(folder: Path, plan: RunPlan) -> None:
    """Write what is going to be run, so that the folder is found again after a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    _note(folder, plan, finished=False)


def finish(folder: Path, plan: RunPlan) -> None:
    """Mark a run as finished: the same command starts a new one."""
    _note(folder, plan, finished=True)


def _note(folder: Path, plan: RunPlan, *, finished: bool) -> None:
    body = {**plan.about(), "finished": finished}
    write_atomically(folder / PLAN, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())
