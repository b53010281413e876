"""Weights of 16 bits are edited by deltas of 32, rounded once when they are added, and given back to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety.edits.edit import LowRank
from editsafety.edits.session import EditSession
from tests import tiny
from tests.test_every_editor import REQUEST, Bed

WIDE = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["rome", "memit", "alphaedit", "emmet", "mend", "lora", "rect(rome)", "prune(rome)"])
def test_a_delta_of_a_half_precision_model_is_kept_in_float32_and_rounded_once(
    name: str, dtype: str, tmp_path: Path
) -> None:
    """Expected: the sum in float64, rounded; float32 may fall on the other side of a tie: one last place off."""
    handle = tiny.handle("llama", dtype=dtype)
    edit = Bed(name, handle, tmp_path).prepared().edit([REQUEST])
    kind = handle.model.dtype
    expected = {}
    for delta in edit.deltas:
        weight = handle.model.get_parameter(delta.parameter).detach().double()
        if isinstance(delta, LowRank):
            assert delta.left.dtype in WIDE
            assert delta.right.dtype in WIDE
            expected[delta.parameter] = weight + delta.site.stored(delta.left.double() @ delta.right.double())
    with EditSession(handle) as session:
        session.apply(edit)
        for parameter, wide in expected.items():
            now = handle.model.get_parameter(parameter).detach()
            assert now.dtype == kind
            step = 2 * torch.finfo(kind).eps
            torch.testing.assert_close(now.double(), wide.to(kind).double(), rtol=step, atol=1e-6)
    assert session.leftovers == ()
    assert handle.fingerprint() == handle.identity
