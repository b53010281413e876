"""How many entries of the edited weights change, and by how much, with the number of edits on top of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from editsafety.edits.session import EditSession
from editsafety.lab.attempt import compute
from editsafety.research.experiments import HARMS, Cell, Context, Result, spell

SHARES = (0.077, 0.171)


class WeightStatistics:
    """Manhattan distance, and the share of entries with |dW / W| above 0.077 and 0.171, after 1, 5, 10 ... edits."""

    name: ClassVar[str] = "weights"
    paper: ClassVar[str] = f"{HARMS}, statistics of the weights"
    title: ClassVar[str] = "relative change of the weights against the number of edits"

    def __call__(self, context: Context) -> Result:
        """A row per number of edits."""
        editor, handle = context.ready(context.editor), context.handle
        requests = context.requests("normal")[: context.steps]
        counts = {1, len(requests), *range(5, len(requests) + 1, 5)}
        carry: Mapping[str, Tensor] | None = None
        rows: list[tuple[Cell, ...]] = []
        label = f"{context.editor} on {handle.name}, on top of each other"
        with EditSession(handle) as session, context.progress.task(label, len(requests)) as task:
            for done, request in enumerate(requests, 1):
                edit = compute(handle, editor, (request,), carry).edit
                session.apply(edit)
                carry = edit.carry
                if done in counts:
                    rows.append((done, *_measure_change(session)))
                task.step(request.id)
        first, last = rows[0], rows[-1]
        sentence = (
            f"after {first[0]} edit by {context.editor} {_share(first[2])} of the entries of the edited weights have "
            f"changed by more than {100 * SHARES[0]:.1f} % and {_share(first[3])} by more than {100 * SHARES[1]:.1f} "
            f"%, after {last[0]} edits {_share(last[2])} and {_share(last[3])}; the Manhattan distance goes from "
            f"{_number(first[1])} to {_number(last[1])}"
        )
        published = (
            "ROME on GPT-2 XL, 1 / 5 / 10 / 15 edits: 20.0 / 49.2 / 67.4 / 72.8 % above 0.077, 10.0 / 28.9 / 46.2 / "
            "52.2 % above 0.171, distance 9,079 / 27,072 / 52,245 / 63,247"
        )
        headings = ("edits", "Manhattan distance", *(f"share above {limit}" for limit in SHARES))
        return Result(self.name, handle.name, headings, tuple(rows), sentence, published)


@torch.no_grad()
def _measure_change(session: EditSession) -> tuple[Cell, ...]:
    """Distance, and shares, over the entries of all declared parameters. Entries that were 0 count once they move."""
    parameters = dict(session.handle.model.named_parameters(remove_duplicate=False))
    distance, entries, above = 0.0, 0, dict.fromkeys(SHARES, 0)
    for name in session.declared():
        was, now = session.original(name).double(), parameters[name].detach().double()
        change = (now - was).abs()
        distance += float(change.sum())
        entries += change.numel()
        for limit in SHARES:
            above[limit] += int((~(change <= limit * was.abs())).sum())
    return (distance, *(above[limit] / entries if entries else None for limit in SHARES))


def _share(cell: Cell) -> str:
    return f"{100 * cell:.0f} %" if isinstance(cell, float) else "-"


def _number(cell: Cell) -> str:
    return spell(cell, 4) if isinstance(cell, float) else "-"


EXPERIMENT = WeightStatistics()
