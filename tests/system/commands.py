"""The command line as a user types it, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
LENIENT = """\
name: lenient
case:
  perplexity: {measure: me_ppl, figure: ratio, pass_at_most: 1.25, fails_as: COLLAPSE, why: only this matters here}
group:
  efficacy: {measure: efficacy, figure: after, pass_at_least: 0.0, why: nothing has to take}
"""
LENIENT_COURSES = (
    LENIENT
    + """\
course:
  perplexity: {measure: me_ppl, figure: ratio, pass_at_most: 1.25, fails_as: COLLAPSE, why: only this matters here}
"""
)
ROME = """\
layers: [1]
v_num_grad_steps: 5
v_lr: 0.5
v_weight_decay: 0.01
clamp_norm_factor: 4
mom2_adjustment: true
context_template_length_params: [[6, 2]]
"""
COSTS = ("cost", "median_seconds_per_edit", "peak_bytes", "seconds")
FT = "layers: [1]\nnum_steps: 5\nlr: 0.01\nnorm_constraint: null\nloss: target_new\n"
NO_COVARIANCE = ROME.replace("mom2_adjustment: true", "mom2_adjustment: false")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


Command = Callable[..., Done]


def given(paths: dict[str, str], *editors: str, **more: Any) -> list[str]:
    """Options of `editsafety run` for the tiny world; `more` are further options, a list for a repeated one."""
    from tests.system import world

    words = [f"--{name}={paths[name]}" for name in ("model", "hard", "normal")]
    words += [f"--texts-from={paths['texts']}", "--device=cpu"]
    words += [f"--editor={world.spelled(paths, name)}" for name in editors]
    for name, value in more.items():
        option = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            words += [option] if one is True else [option, str(one)]
    return words


def report(folder: Path | str) -> dict[str, Any]:
    """report.json of a run folder."""
    found: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text())
    return found


def cases(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The judged cases of a report by id."""
    return {case["case"]: case for group in body["groups"] for case in group["cases"]}


def without_times(body: Any) -> Any:
    """A report without seconds and bytes: what must be equal between two runs of the same."""
    if isinstance(body, dict):
        return {name: without_times(value) for name, value in body.items() if name not in COSTS}
    return [without_times(value) for value in body] if isinstance(body, list) else body


def start(*words: str, cwd: Path, program: tuple[str, ...] = ("-m", "editsafety"), **env: str) -> subprocess.Popen[str]:
    """A command in a process of its own, on one thread and offline."""
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **env},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[str], timeout: float = 120.0) -> Done:
    """Wait for a command."""
    out, err = process.communicate(timeout=timeout)
    return Done(process.returncode, out, err)


def kill(process: subprocess.Popen[str], *, when: Callable[[], bool], how: int = signal.SIGKILL) -> Done:
    """Send a signal as soon as something has happened."""
    deadline = time.monotonic() + 60
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)
    process.send_signal(how)
    return ended(process)
