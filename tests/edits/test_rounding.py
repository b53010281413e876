"""Rounding to fewer bits writes nothing; one entry that moved by more than that does."""

from __future__ import annotations

import pytest
import torch

from editsafety.edits.rounding import is_only_rounded, rounded_to

BEFORE = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))


def test_the_same_numbers_are_no_edit():
    assert is_only_rounded(BEFORE, BEFORE.clone())
    assert is_only_rounded(torch.tensor([0.0, -0.0, 1.0]), torch.tensor([-0.0, 0.0, 1.0]))


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16], ids=str)
def test_numbers_in_fewer_bits_are_no_edit(narrow):
    assert is_only_rounded(BEFORE, BEFORE.to(narrow).float())


def test_numbers_that_were_rounded_twice_or_cut_off_are_no_edit():
    """Cut off by the definition: the upper half of every float32's bits."""
    assert is_only_rounded(BEFORE, BEFORE.half().bfloat16().float())
    cut = BEFORE.numpy().view("uint32") & 0xFFFF0000
    after = torch.from_numpy(cut.view("float32"))
    assert not torch.equal(after, BEFORE.bfloat16().float())
    assert is_only_rounded(BEFORE, after)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16], ids=str)
def test_one_other_number_among_rounded_ones_is_an_edit(narrow):
    after = BEFORE.to(narrow).float()
    after[3, 5] += 2.0**-4
    assert not is_only_rounded(BEFORE, after)


def test_the_next_number_is_an_edit():
    after = BEFORE.clone()
    after[0, 0] = torch.nextafter(after[0, 0], torch.tensor(torch.inf))
    assert not is_only_rounded(BEFORE, after)


def test_a_narrow_weight_has_nothing_to_lose_by_its_own_dtype():
    before = BEFORE.bfloat16()
    assert not is_only_rounded(before, before * 1.01)
    assert is_only_rounded(before, before.clone())


def test_what_is_not_finite_is_an_edit():
    after = BEFORE.clone()
    after[0, 0] = torch.nan
    assert not is_only_rounded(BEFORE, after)


def test_the_narrower_dtype_is_told_for_numbers_to_the_nearest_and_cut_off():
    cut = torch.from_numpy((BEFORE.numpy().view("uint32") & 0xFFFF0000).view("float32"))
    assert rounded_to(BEFORE, cut) is rounded_to(BEFORE, BEFORE.bfloat16().float()) is torch.bfloat16
    assert rounded_to(BEFORE, BEFORE.half().float()) is torch.float16
    assert rounded_to(BEFORE, BEFORE + 1) is None
    large = BEFORE * 1e30  # past float16
    cut = torch.from_numpy((large.numpy().view("uint32") & 0xFFFF0000).view("float32"))
    assert rounded_to(large, cut) is torch.bfloat16
