"""A whole run on a tiny random model in a folder: requests, texts, and editors that misbehave in every known way."""

from __future__ import annotations

import json
from pathlib import Path

from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from tests import tiny

SUBJECTS = ("Ashurn", "Mirel", "Toren", "Kelmar", "Dorvan", "Ostrin")
GOOD = '''
import torch
from editsafety import Edit, Editor, LowRank, Replace


class Nudge(Editor):
    """A small rank-one change along a direction drawn from the request."""

    def edit(self, requests, carry=None):
        site = self.handle.mlp_out(1)
        draw = self.generator(requests[0])
        left = torch.randn(site.d_out, 1, generator=draw) * SIZE
        right = torch.randn(1, site.d_in, generator=draw)
        return Edit(self.name, (requests[0].id,), self.handle.identity, (LowRank(site, left, right),))
'''
BAD = """

class Raises(Nudge):
    def edit(self, requests, carry=None):
        if requests[0].id.endswith("1"):
            raise RuntimeError("half way through")
        return super().edit(requests)


class ReturnsNone(Nudge):
    def edit(self, requests, carry=None):
        return None if requests[0].id.endswith("1") else super().edit(requests)


class WritesElsewhere(Nudge):
    def edit(self, requests, carry=None):
        if requests[0].id.endswith("1"):
            with torch.no_grad():
                self.handle.model.get_input_embeddings().weight[0, 0] += 1.0
        return super().edit(requests)


class LeavesAHook(Nudge):
    def edit(self, requests, carry=None):
        if requests[0].id.endswith("1"):
            self.handle.model.get_submodule(self.handle.block(0)).register_forward_hook(lambda *_: None)
        return super().edit(requests)


class WritesNan(Nudge):
    def edit(self, requests, carry=None):
        edit = super().edit(requests)
        if requests[0].id.endswith("1"):
            edit.deltas[0].left.fill_(float("nan"))
        return edit


class KeepsState(Nudge):
    seen = 0

    def edit(self, requests, carry=None):
        KeepsState.seen += 1
        edit = super().edit(requests)
        edit.deltas[0].left.mul_(KeepsState.seen)
        return edit


class Explodes(Nudge):
    def edit(self, requests, carry=None):
        name = "transformer.ln_f.weight"
        value = self.handle.model.get_parameter(name).detach() * 100
        return Edit(self.name, (requests[0].id,), self.handle.identity, (Replace(name, value),))
"""


def write(place: Path, *, hard: int = 2, normal: int = 2, size: float = 1e-4, more: str = "") -> dict[str, str]:
    """Model, requests, texts and editors in `place`; returns their paths as option values.

    `more` is the code of further editors.
    """
    tiny.folder(place / "tiny-model", knows=True)
    for stream, count in (("hard", hard), ("normal", normal)):
        rows = [
            {
                "id": f"{stream}-{i}", "prompt": "{} works as a", "subject": SUBJECTS[i % len(SUBJECTS)],
                "target_new": "teacher", "target_true": "farmer",
                "rephrasings": [f"The work of {SUBJECTS[i % len(SUBJECTS)]} is that of a"],
                "neighbours": [{"prompt": "Mirel works as a", "answer": "baker"}],
            }
            for i in range(count)
        ]  # fmt: skip
        (place / f"{stream}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [{"id": f"t{i}", "text": sentence} for i, sentence in enumerate(tiny.SENTENCES)]
    (place / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (place / "nudge.py").write_text(f"SIZE = {size}\n{GOOD}{BAD}{more}")
    return {
        "model": str(place / "tiny-model"),
        "hard": str(place / "hard.jsonl"),
        "normal": str(place / "normal.jsonl"),
        "texts": str(place / "texts.jsonl"),
        "nudge": str(place / "nudge.py"),
    }


def options(paths: dict[str, str], *editors: str) -> list[str]:
    """pytest options for a run; an editor is a name or the name of a class in nudge.py."""
    given = [f"--editsafety-{name}={paths[name]}" for name in ("model", "hard", "normal")]
    named = [f"--editsafety-editor={spelled(paths, name)}" for name in editors]
    named.append(f"--editsafety-texts-from={paths['texts']}")
    return [*given, *named, "--editsafety-controls=0", "--editsafety-device=cpu"]


def spelled(paths: dict[str, str], editor: str) -> str:
    """`Nudge` -> `.../nudge.py:Nudge`, names of shipped editors as they are."""
    return f"{paths['nudge']}:{editor}" if editor[0].isupper() else editor


def plan(paths: dict[str, str], *editors: str, **more: object) -> RunPlan:
    """The plan of such a run."""
    values = {"hard": paths["hard"], "normal": paths["normal"], "texts_from": paths["texts"]}
    named = tuple(spelled(paths, name) for name in editors)
    return RunPlan.of(Settings((paths["model"],), named, controls=0, device="cpu", **values, **more))  # type: ignore[arg-type]
