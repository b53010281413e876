"""Site: which way round a weight is stored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from editsafety.errors import ModelError
from editsafety.model.sites import Layout, Site
from tests import tiny


@pytest.mark.parametrize("layout", Layout)
def test_canonical_and_stored_are_inverse_views_of_the_same_memory(layout: Layout) -> None:
    site = Site("some.module", layout, d_out=3, d_in=5)
    weight = torch.randn((3, 5) if layout is Layout.OUT_IN else (5, 3))
    seen = site.canonical(weight)
    assert tuple(seen.shape) == (3, 5)
    assert torch.equal(site.stored(seen), weight)
    seen[0, 4] = 7.0
    assert 7.0 in weight


def test_a_site_names_its_parameter() -> None:
    assert Site("a.b", Layout.IN_OUT, 3, 5).parameter == "a.b.weight"


def test_the_same_name_is_read_the_right_way_in_gpt2_and_gpt_neo() -> None:
    """`transformer.h.0.mlp.c_proj` is a Conv1D in one and a Linear in the other; square, so no shape can tell."""
    one, other = (tiny.handle(family, square=True).mlp_out(0) for family in ("gpt2", "gpt_neo"))
    assert one.module == other.module
    assert (one.d_out, one.d_in) == (other.d_out, other.d_in) == (32, 32)
    assert (one.layout, other.layout) == (Layout.IN_OUT, Layout.OUT_IN)


def test_a_module_without_a_matrix_is_refused_by_name() -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(ModelError, match=r"has no module 'transformer.h.9.mlp'"):
        handle.site("transformer.h.9.mlp")
    with pytest.raises(ModelError, match=r"transformer.ln_f of tiny-gpt2 is no plain matrix .*unquantised"):
        handle.site("transformer.ln_f")
    with pytest.raises(ModelError, match="no weight"):
        handle.site("transformer.h.0")
    with pytest.raises(ModelError, match=r"is a Embedding; known are nn.Linear and Conv1D"):
        handle.site("transformer.wte")


def test_a_packed_or_missing_weight_is_refused_by_name() -> None:
    handle = tiny.handle("llama")
    module = handle.model.get_submodule("model.layers.0.mlp.down_proj")
    packed = torch.zeros(32, 64, dtype=torch.uint8)
    module.weight = nn.Parameter(packed, requires_grad=False)
    with pytest.raises(ModelError, match=r"torch.uint8.*unquantised"):
        handle.mlp_out(0)
    module.weight = nn.Parameter(torch.empty(32, 64, device="meta"))
    with pytest.raises(ModelError, match="meta device"):
        handle.mlp_out(0)
