"""Running a batch from a chosen token on: the logits are those of whole rows, also of some of the rows."""

from __future__ import annotations

import pytest
import torch

from editsafety.editing.suffix import Suffix
from tests import tiny

TEXTS = (
    ("", "Ashurn works as a farmer"),
    ("Toren lives in Ostrin, close to the old harbour. ", "Mirel works as a"),
    ("The quick. ", "Toren plays the flute every evening"),
)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@torch.no_grad()
def test_some_of_the_rows_give_what_they_gave_among_all(family: str) -> None:
    handle = tiny.handle(family)
    starts = [len(handle.ids(before)) if before else 0 for before, _ in TEXTS]
    rows = [handle.ids(before + text) for before, text in TEXTS]
    suffix = Suffix(handle, rows, starts)
    every = suffix.logits()
    for chosen in ([0, 2], [1], [2, 1, 0]):
        some = suffix.of_rows(chosen)
        assert torch.equal(some.batch.ids, suffix.batch.ids[chosen])
        for place, found in zip(chosen, some.logits(), strict=True):
            length = len(rows[place]) - starts[place]
            torch.testing.assert_close(found[:length], every[place, :length], rtol=1e-4, atol=1e-4)
            whole = handle.logits(handle.batch([rows[place]]))[0, starts[place] :]
            torch.testing.assert_close(found[:length], whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(suffix.logits(), every), "choosing rows changed the suffix they were chosen from"
