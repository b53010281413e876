"""What fuzzing found once, each mended since: tried first, every time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from tests.fuzz import tensors
from tests.fuzz.readers import DELTA, HPARAMS, PLAN, POLICY, ROWS
from tests.fuzz.targets import Files, delta, prepared, run


def of(target: str) -> list[Files]:
    """The findings of a target."""
    return list(FOUND[target]()) if target in FOUND else []


def _deltas() -> Iterator[Files]:
    whole = delta()[DELTA]
    kept, body = tensors.opened(whole)
    bodies: list[Any] = [{**body, "about": about} for about in (None, True, [], "x")]
    bodies += [None, [], {name: value for name, value in body.items() if name != "format"}, {**body, "sha256": None}]
    for other in bodies:
        yield Files({DELTA: tensors.sealed(kept, other)})
    for lie in ({"deltas": [None]}, {"deltas": {"x": 1}}, {"sidecars": None}, {"made_for": None}, {"requests": 7}):
        yield Files({DELTA: tensors.lying(whole, **lie)})
    turned = {name: tensor.T.contiguous() if tensor.dim() == 2 else tensor for name, tensor in kept.items()}
    yield Files({DELTA: tensors.lying(whole, turned)})


def _artifacts(editor: str) -> Iterator[Files]:
    """Every artifact with one tensor missing, of another shape, empty, and with nothing said about it."""
    whole = prepared(editor)
    for file, data in whole.items():
        kept, body = tensors.opened(data)
        first = min(kept)
        for other in (
            {name: tensor for name, tensor in kept.items() if name != first},
            {**kept, first: kept[first].reshape(1, -1)},
            *({**kept, name: torch.zeros(0, dtype=tensor.dtype)} for name, tensor in kept.items()),
        ):
            yield Files({**whole, file: tensors.lying(data, other)})
        yield Files({**whole, file: tensors.sealed(kept, {**body, "about": None})})


def _runs() -> Iterator[Files]:
    whole = run()
    plan = json.loads(whole[PLAN])
    for settings in (None, [], {**plan["settings"], "limit": "x"}, {**plan["settings"], "models": None}):
        yield Files({**whole, PLAN: json.dumps({**plan, "settings": settings}).encode()})


def _deep(name: str) -> Iterator[Files]:
    for text in (b"[" * 20_000, b"{" * 20_000, b"&a [*a]", b"? [a]\n: 1\n", b"x: !!timestamp 2024-02-31\n"):
        yield Files({name: text})


def _rows() -> Iterator[Files]:
    for text in (b"[" * 5_000, b"9" * 5_000, b'[{"id": ' + b"9" * 5_000 + b"}]"):
        yield Files({ROWS: text})


FOUND: dict[str, Callable[[], Iterator[Files]]] = {
    "deltas": _deltas,
    **{f"artifacts-{name}": partial(_artifacts, name) for name in ("alphaedit", "mend", "serac")},
    "requests": _rows,
    "texts": _rows,
    "policies": partial(_deep, POLICY),
    "hyperparameters": partial(_deep, HPARAMS),
    "runs": _runs,
}
