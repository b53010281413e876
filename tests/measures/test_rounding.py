"""Rounding to few bits, against the formula entry by entry in plain Python."""

from __future__ import annotations

import torch
from torch import Tensor

from editsafety.measures import _rounding
from tests import tiny


def by_hand(row: list[float], levels: int) -> list[float]:
    scale = max(abs(x) for x in row) / levels
    return [x if scale == 0 else max(-levels, min(levels, round(x / scale))) * scale for x in row]


def weight(width: int) -> Tensor:
    made = torch.randn(5, width, generator=torch.Generator().manual_seed(1))
    made[2] = 0.0
    return made


def test_8_bits_have_one_scale_per_output_channel() -> None:
    given = weight(40)
    expected = torch.tensor([by_hand(row, 127) for row in given.tolist()])
    torch.testing.assert_close(_rounding.to_int8(given), expected)


def test_4_bits_have_one_scale_per_32_entries_and_the_last_group_may_be_shorter() -> None:
    given = weight(40)
    expected = torch.tensor([[*by_hand(row[:32], 7), *by_hand(row[32:], 7)] for row in given.tolist()])
    torch.testing.assert_close(_rounding.to_4bit(given), expected)


def test_what_is_on_the_grid_stays_where_it_is() -> None:
    for rounding in (_rounding.to_int8, _rounding.to_4bit):
        once = rounding(weight(64))
        torch.testing.assert_close(rounding(once), once, rtol=1e-6, atol=0)


def test_heads_and_embeddings_are_no_projections_whether_tied_or_not() -> None:
    for tied in (True, False):
        names = {site.module for site in _rounding.projections(tiny.handle("gpt2", tied=tied))}
        assert names
        assert not names & {"lm_head", "transformer.wte", "transformer.wpe"}
