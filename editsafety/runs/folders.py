"""Run folders: where a run keeps its store and its report, and how an interrupted run is found again. No torch here."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from editsafety.errors import StoreError
from editsafety.names import slug
from editsafety.runs.model_files import state_of_files
from editsafety.runs.plan import RunPlan
from editsafety.runs.shards import WHOLE, Shard
from editsafety.shipped import shipped
from editsafety.tensor_files import write_atomically

STORE, PLAN, EDITS, LOCK = "store.sqlite", "plan.json", "edits", "run.lock"


def choose(plan: RunPlan, reports: Path, out: Path | None = None, shard: Shard = WHOLE) -> Path:
    """The folder of a run: `out` when given, else the newest unfinished run of the same plan, else a new one.

    A run whose local models have changed since is not gone on with, nor one that is still going on. Nothing is written
    yet.
    """
    if out is not None:
        return out
    digest = plan.digest()
    for path in sorted(reports.glob(f"*/{PLAN}"), reverse=True):
        found = about(path.parent)
        same = found.get("digest") == digest and found.get("weights", {}) == _weights(plan)
        same = same and found.get("shard", str(WHOLE)) == str(shard)
        if same and not found.get("finished") and not _is_held(path.parent):
            return path.parent
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    name = f"{stamp}-{'-'.join(dict.fromkeys(slug(model) for model in plan.settings.models))}"
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(reports / one for one in names if not (reports / one / PLAN).is_file())


def begin(folder: Path, plan: RunPlan, shard: Shard = WHOLE) -> FileLock:
    """Write what is going to be run, so that the folder is found again after a kill.

    The folder belongs to this run until the lock is released, or its process has ended, however it does.

    Raises StoreError when nothing can be written there, or when it holds another run, of another plan or one that is
    still going on: facts of the two would be mixed.
    """
    found = about(folder)
    if found.get("digest", plan.digest()) != plan.digest():
        raise StoreError(
            f"{folder}: holds another run (other options, data or editor files). Give another --out, or remove it."
        )
    if found.get("shard", str(shard)) != str(shard):
        raise StoreError(
            f"{folder}: holds part {found['shard']} of this run, not {shard}. Give each part its own --out."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
        try:
            _note(folder, plan, shard, finished=False)
        except OSError:
            lock.release()
            raise
    except Timeout as error:
        raise StoreError(f"{folder}: another run is at work in it. Wait for its end, or give another --out.") from error
    except OSError as error:
        raise StoreError(f"{folder}: cannot hold a run ({error.strerror}). Give another --out.") from error
    return lock


def about(folder: Path) -> dict[str, Any]:
    """What was written about the run in a folder; nothing when there is none."""
    if not (folder / PLAN).is_file():
        return {}  # a pipe of that name would be waited at
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def finish(folder: Path, plan: RunPlan, shard: Shard = WHOLE) -> None:
    """Mark a run as finished: the same command starts a new one."""
    _note(folder, plan, shard, finished=True)


def suites() -> str:
    """How pytest is told where the suites are: their folder in a checkout, the package when they are inside it."""
    place = shipped("suites")
    inside = place.is_relative_to(Path(__file__).resolve().parents[1])
    return "--pyargs editsafety.suites" if inside else near(place).as_posix()


def near(path: Path) -> Path:
    """The path as seen from here when it is below, else as it is."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _note(folder: Path, plan: RunPlan, shard: Shard, *, finished: bool) -> None:
    body = {**plan.about(), "weights": _weights(plan), "shard": str(shard), "finished": finished}
    write_atomically(folder / PLAN, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def _weights(plan: RunPlan) -> dict[str, str]:
    """The state of the files of every local model."""
    return {model: state for model in plan.settings.models if (state := state_of_files(model))}


def _is_held(folder: Path) -> bool:
    """Whether a run is at work in a folder."""
    try:
        with FileLock(folder / LOCK).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # it cannot be written; whoever begins there is told
