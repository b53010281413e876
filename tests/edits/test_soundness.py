"""Soundness: what no model can be changed by is refused where an edit is made of it, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from editsafety.edits.edit import Edit, LowRank, Replace
from editsafety.errors import EditError
from editsafety.model.sites import Layout, Site

SITE = Site("some.module", Layout.IN_OUT, d_out=4, d_in=6)


def low(left: Any, right: Any) -> Any:
    return LowRank(SITE, left, right)


UNSOUND = {
    "integers": (lambda: Replace("w", torch.ones(3).int()), "new value for w is int32, expected one of float16, "),
    "booleans": (lambda: Replace("w", torch.ones(3) > 0), "new value for w is bool, expected one of float16, "),
    "complex": (lambda: Replace("w", torch.ones(3).to(torch.complex64)), "new value for w is complex64, expected"),
    "eight bits": (lambda: Replace("w", torch.ones(3).to(torch.float8_e4m3fn)), "w is float8_e4m3fn, expected one of"),
    "sparse": (lambda: Replace("w", torch.ones(3, 3).to_sparse()), "w is stored as sparse_coo, expected all of its"),
    "meta": (lambda: Replace("w", torch.ones(3, device="meta")), r"has a shape and no values \(device meta\)"),
    "an array": (lambda: Replace("w", torch.ones(3).numpy()), "new value for w is of the class ndarray, expected a te"),
    "nothing": (lambda: Replace("w", None), "new value for w is None, expected a tensor"),  # type: ignore[arg-type]
    "integer factor": (lambda: low(torch.ones(4, 1), torch.ones(1, 6).long()), "some.module: right is int64, expecte"),
    "no factor": (lambda: low(None, torch.ones(1, 6)), "delta for some.module: left is None, expected a tensor"),
    "no rank": (lambda: low(torch.ones(4, 0), torch.ones(0, 6)), r"left \[4, 0\] and right \[0, 6\] do not make"),
    "no deltas": (lambda: Edit("e", (), "m", None), "deltas of an edit is None, expected a tuple of LowRank or Repl"),  # type: ignore[arg-type]
    "a generator": (lambda: Edit("e", (), "m", (x for x in ())), "deltas of an edit is of the class generator"),  # type: ignore[arg-type]
    "a pair": (lambda: Edit("e", (), "m", (("w", 1),)), r"deltas\[0\] of an edit is of the class tuple, expected LowR"),  # type: ignore[arg-type]
    "a module": (lambda: Edit("e", (), "m", sidecars=(nn.ReLU(),)), r"sidecars\[0\] of an edit is of the class ReLU"),  # type: ignore[arg-type]
    "one id": (lambda: Edit("e", "abc", "m"), "request_ids of an edit is of the class str, expected a tuple of str"),  # type: ignore[arg-type]
    "numbers": (lambda: Edit("e", (7,), "m"), r"request_ids\[0\] of an edit is of the class int, expected str"),  # type: ignore[arg-type]
    "notes": (lambda: Edit("e", (), "m", notes=["a"]), "notes of an edit is of the class list, expected a mapping"),  # type: ignore[arg-type]
    "carry": (lambda: Edit("e", (), "m", carry={"a": 1}), r"carry\['a'\] of an edit is of the class int, expected Te"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("kind", UNSOUND)
def test_what_no_model_can_be_changed_by_is_refused_where_it_is_made(kind: str) -> None:
    make, message = UNSOUND[kind]
    with pytest.raises(EditError, match=message):
        make()


def test_deltas_may_be_a_list_and_notes_may_hold_anything() -> None:
    edit = Edit("e", ["a"], "m", [Replace("w", torch.ones(3))], notes={"x": float("nan")})  # type: ignore[arg-type]
    assert edit.parameters == ("w",)
