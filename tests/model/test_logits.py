"""Logits only where they are read."""

import pytest
import torch

from editsafety.model import logits
from tests import tiny


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_chosen_logits_are_those_of_the_whole_batch(family: str) -> None:
    handle = tiny.handle(family)
    batch = handle.batch([handle.ids(text) for text in tiny.SENTENCES[:3]])
    rows, positions = torch.tensor([0, 0, 2, 1]), torch.tensor([0, 5, 3, 2])
    with torch.no_grad():
        whole = handle.logits(batch)
        with logits.only_at(handle, rows, positions):
            chosen = handle.logits(batch)
        again = handle.logits(batch)
    torch.testing.assert_close(chosen[0], whole[rows, positions], rtol=1e-4, atol=1e-5)
    assert again.shape == whole.shape
