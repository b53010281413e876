"""Programs that edit a model folder without torch, written to a test's folder; each starts in tenths of a second."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

WEIGHT = "transformer.h.1.mlp.c_proj.weight"
COMMON = f"""
import json, os, shutil, sys, time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHT = {WEIGHT!r}
model, requests, out = map(Path, sys.argv[1:4])
rows = json.loads(requests.read_text())
weights = load_file(model / "model.safetensors")
draw = np.random.default_rng(0)


def written(size=0.1):
    value = weights[WEIGHT]
    first, second = draw.standard_normal(value.shape[0]), draw.standard_normal(value.shape[1])
    return (value + size * np.outer(first, second)).astype(value.dtype)


def checkpoint(changes, place=out):
    if place != model:
        shutil.copytree(model, place, dirs_exist_ok=True)
    save_file({{**weights, **changes}}, place / "model.safetensors", metadata={{"format": "pt"}})

"""


def command(place: Path, body: str, *, more: str = "", name: str = "edit.py") -> str:
    """An editor's name: a program in `place` that does `body` behind what all of them do."""
    (place / name).write_text(COMMON + body, encoding="utf-8")
    words = f"{shlex.quote(sys.executable)} {shlex.quote(str(place / name))}"
    return f"command: {words} {{model}} {{requests}} {{out}} {more}".strip()
