"""Reloading: a model is saved, and a new process loads it and measures what is to be kept.

In shards of at most half of the model, so that there are at least two; tied matrices are written once. Nothing of this
process is there in the other: what an edit owes to a hook, a cache or a buffer that no checkpoint holds is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from editsafety.datasets.request import EditRequest
from editsafety.errors import EditSafetyError, MeasureError, sentence_of
from editsafety.measures import Inputs
from editsafety.measures._survival import retake
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec, no_bars
from editsafety.runs.measurement import Measurement

ENTRY = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from editsafety.measures._reloading import main; main()"
)
PATIENCE = 1800.0  # seconds for a process to load a model and answer some questions


def measured_after_reload(handle: ModelHandle, inputs: Inputs) -> dict[str, Measurement]:
    """What is found of the model, as it is now, by a process that loads it from its files.

    A checkpoint that cannot be loaded is a finding: `broken`. Raises MeasureError where it cannot be written, or the
    process ends without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="editsafety-reload-") as place:
        folder = Path(place) / handle.name
        try:
            _save(handle, folder)
        except OSError as error:
            raise MeasureError(
                f"{handle.name} cannot be saved to {place} ({error.strerror or error}), so whether an edit survives "
                "that cannot be told. Make room there, or name another folder in TMPDIR."
            ) from error
        spec = replace(handle.spec, name=str(folder), revision=None, offline=True)
        if spec.device_map is None:
            spec = replace(spec, device=str(handle.device))
        answer = _ask(spec, inputs)
    if "refused" in answer:
        reason = f"the saved model cannot be loaded, so its logits are not finite numbers: {answer['refused']}"
        return {"reload": Measurement.missing("reload", 1, "share", reason, broken=True)}
    return {name: Measurement.from_json(row) for name, row in answer["found"].items()}


def main() -> None:
    """What the new process does: a task from its standard input, the answer to its standard output."""
    task = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        handle = ModelHandle.load(ModelSpec(**task["model"]))
        requests = tuple(EditRequest.from_json(row) for row in task["requests"])
        found = retake(handle, Inputs(requests, batch_size=task["batch_size"]))
        answer = {"found": {name: one.as_json() for name, one in found.items()}}
    except EditSafetyError as error:
        answer = {"refused": sentence_of(error)}
    sys.stdout.write(json.dumps(answer))


def _save(handle: ModelHandle, folder: Path) -> None:
    half = max(1, sum(one.numel() * one.element_size() for one in handle.model.parameters()) // 2)
    with no_bars():
        handle.model.save_pretrained(folder, max_shard_size=half)
    handle.tokenizer.save_pretrained(folder)


def _ask(spec: ModelSpec, inputs: Inputs) -> dict[str, Any]:
    task = {
        "model": {name: getattr(spec, name) for name in ModelSpec.__dataclass_fields__},
        "requests": [request.as_json() for request in inputs.requests],
        "batch_size": inputs.batch_size,
    }
    words = [sys.executable, "-c", ENTRY, json.dumps(sys.path)]
    try:
        done = subprocess.run(
            words, input=json.dumps(task), capture_output=True, text=True, timeout=PATIENCE, check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MeasureError(
            f"a new process did not answer within {PATIENCE:g} s after it was given {spec.slug}."
        ) from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MeasureError(f"a new process ended with {done.returncode} instead of measuring {spec.slug}: {last}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer
