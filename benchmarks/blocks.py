"""Edits of 1, 8, 32, 128 requests on one model: seconds, peak memory, perplexity of the edited model.

    python benchmarks/blocks.py --model random:gpt2-xl --dtype bfloat16 --editor memit --sizes 1,8,32,128

A line of JSON for each figure. ROME has no batches: its sizes are so many edits, one after the other. Small sizes are
also timed without shortcuts and as published (`--against`), which takes long for large ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from editsafety.datasets.request import EditRequest
from editsafety.edits.session import EditSession
from editsafety.model.loading import ModelSpec
from editsafety.model.meter import metered
from editsafety.progress import Progress
from editsafety.research.speed.naive import Naive
from editsafety.research.speed.workplace import Workplace

Edit = Callable[[Sequence[EditRequest]], object]
Figures = dict[str, Any]


def main() -> None:
    """Read the options, and print a line for each figure as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket-neo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--editor", action="append", default=[], help="repeatable; rome, memit and alphaedit")
    parser.add_argument("--sizes", default="1,8,32,128")
    parser.add_argument("--against", type=int, default=8, help="up to this size also plainly and as published")
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")]
    for figures in measured(asked, asked.editor or ["rome", "memit", "alphaedit"], sizes):
        print(json.dumps({"model": asked.model, "dtype": asked.dtype, **figures}), flush=True)


def measured(asked: argparse.Namespace, names: Sequence[str], sizes: Sequence[int]) -> Iterator[Figures]:
    """Everything, in the order in which it is measured."""
    with metered(torch.device("cpu")) as loading:
        place = Workplace.at(ModelSpec(asked.model, asked.device, asked.dtype), Progress.quiet())
    yield {"what": "load", "seconds": loading.seconds}
    for name in names:
        with metered(place.handle.device) as preparing:
            editor = place.editor(name)
        yield {"what": f"prepare {name}", "seconds": preparing.seconds}
        editor.edit(place.requests[:1])  # the first one wakes the device up
        for size in sizes:
            requests = [place.requests[i % len(place.requests)] for i in range(size)]
            parts = [[one] for one in requests] if name == "rome" else [requests]
            for way, edit in ways(place, name, published=size <= asked.against).items():
                yield {"what": f"{name} {size}", "way": way, **timed(place, edit, parts)}
    yield {"what": "perplexity of an edited model", "seconds": perplexity(place)}


def ways(place: Workplace, name: str, *, published: bool) -> dict[str, Edit]:
    """How an edit can be made."""
    editor = place.editor(name)
    if not published:
        return {"ours": editor.edit}

    def plainly(requests: Sequence[EditRequest]) -> object:
        with place.handle.engine.switched_off():
            return editor.edit(requests)

    return {"ours": editor.edit, "plain": plainly, "published": Naive.of(editor).edit}


def timed(place: Workplace, edit: Edit, parts: Sequence[Sequence[EditRequest]]) -> Figures:
    """Seconds and peak memory of these edits, one after the other."""
    with metered(place.handle.device, memory=True) as reading:
        for part in parts:
            edit(part)
    return {"seconds": reading.seconds, "peak_bytes": reading.peak_bytes}


def perplexity(place: Workplace) -> float:
    """Seconds to measure a model that was edited at a third of its depth, its texts having been read before."""
    edit = place.nudge(place.handle.layers // 3, torch.Generator().manual_seed(0))
    with EditSession(place.handle, baseline=place.bench.baseline) as session:
        session.apply(edit)
        for _ in range(2):
            place.bench.measure("model")
        with metered(place.handle.device) as reading:
            place.bench.measure("model")
    return reading.seconds


if __name__ == "__main__":
    main()
