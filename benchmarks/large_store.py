"""Write the folder of a run as large as you like, without running it: records of a small run, copied with other names.

    editsafety run --model pocket-neo --editor rome --out small
    python benchmarks/large_store.py small 100000 large     # then: editsafety report large

Every tenth case is of the stream `hard`. Of each copy the perplexity after the edit is its template's times a factor of
its own within 1 %, so that no two cases are equal. The requests stand in two files beside the store.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from editsafety.datasets.request import EditRequest
from editsafety.names import label, slug
from editsafety.runs import folders
from editsafety.runs.facts import BlockKey, Ended, Wanted
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store

HARD = 10  # one case of so many is a hard one


def write_large_run(small: Path, cases: int, large: Path) -> RunPlan:
    """Write a run of that many single edits of the first editor of `small` into `large`; its plan."""
    about = folders.about(small)
    settings = Settings.stored(about["settings"], str(small))
    model, editor = settings.models[0], settings.editors[0]
    with closing(Store(small / folders.STORE)) as store:
        records = [one for one in store.records() if one.editor == label(editor) and one.steps and not one.is_course]
        facts = [one for one in store.each_fact() if not isinstance(one, BlockKey | Wanted | Ended)]
    bodies = {name: [json.loads(one.to_text()) for one in records if one.stream == name] for name in ("hard", "normal")}
    large.mkdir(parents=True)
    files = {name: large / f"{name}.jsonl" for name in bodies}
    with ExitStack() as opened:
        into = {name: opened.enter_context(file.open("w", encoding="utf-8")) for name, file in files.items()}
        for body in _copies(bodies, cases):
            into[body["stream"]].write(f"{json.dumps(body['requests'][0])}\n")
    made = replace(
        settings, models=(model,), editors=(editor,), hard=str(files["hard"]), normal=str(files["normal"]),
        limit=None, controls=0, hparams=(),
    )  # fmt: skip
    plan = RunPlan.of(made)
    lock = folders.begin(large, plan)
    with closing(Store(large / folders.STORE)) as store:
        key = BlockKey(slug(model), label(editor), "a" * 64, "b" * 64)
        wanted = Wanted(tuple(sorted(case.id for case in plan.cases)))
        for fact in (*facts, key, wanted, Ended(interrupted=False)):
            store.note(fact)
    _put(
        large / folders.STORE,
        ((key.of(case), body) for case, body in zip(plan.cases, _copies(bodies, cases), strict=True)),
    )
    lock.release()
    return plan


def _copies(bodies: Mapping[str, Sequence[dict[str, Any]]], cases: int) -> Iterator[dict[str, Any]]:
    """Bodies of records in the order of a plan: the hard ones first."""
    hard = cases // HARD
    for number in range(cases):
        templates = bodies["hard" if number < hard else "normal"]
        factor = 0.99 + 0.02 * ((number * 7919) % 10007) / 10007
        yield _renamed(templates[number % len(templates)], number, factor)


def _renamed(template: dict[str, Any], number: int, factor: float) -> dict[str, Any]:
    (request,), (step,) = template["requests"], template["steps"]
    name = f"{template['stream']}-{number:06d}"
    found = dict(step["found"])
    for measure in ("me_ppl", "ppl_median", "ppl_worst", "ppl_token_weighted"):
        if found[measure]["value"] is not None:
            found[measure] = {**found[measure], "value": found[measure]["value"] * factor}
    case = template["case"].removesuffix(EditRequest.from_json(request).slug) + name
    steps = [{**step, "block": [name], "found": found}]
    return {**template, "case": case, "requests": [{**request, "id": name}], "steps": steps}


def _put(store: Path, bodies: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """All in one transaction: `Store.put` makes one for each."""
    rows = ((key, body["case"], True, json.dumps(body, sort_keys=True)) for key, body in bodies)
    with closing(sqlite3.connect(store)) as file, file:
        file.executemany("INSERT INTO cases VALUES (?, ?, ?, ?)", rows)


if __name__ == "__main__":
    write_large_run(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
