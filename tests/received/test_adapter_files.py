"""An edit as an adapter, read back as peft serves it; and two models as an edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editsafety.edits.edit import Edit, LowRank, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, UsageError
from editsafety.model.architectures import Part
from editsafety.received.adapter_files import in_factors, write_adapter
from editsafety.received.receiving import receive, with_factors
from tests import tiny
from tests.received.given import folder

TEXTS = tiny.SENTENCES


def edited_logits(handle, edit):
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        return handle.logits(handle.batch([handle.ids(TEXTS[0])]))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_low_rank_edit_is_an_adapter_that_computes_the_same(family: str, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    handle = tiny.handle(family)
    sites = [handle.mlp_out(1), handle.sites(Part.ATTENTION_OUT, 2)[0]]
    deltas = tuple(tiny.low_rank(site, rank=rank, size=0.5) for site, rank in zip(sites, (1, 3), strict=True))
    edit = Edit("mine", ("a",), handle.identity, deltas)
    write_adapter(handle, edit, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["fan_in_fan_out"]) == (3, family == "gpt2")
    assert config["rank_pattern"] == {sites[0].module: 1}
    handed = receive(handle, str(tmp_path / "adapter"), TEXTS)  # served by peft and merged, both computing the same
    assert handed.kind == "adapter"
    assert {delta.parameter for delta in handed.edit.deltas} == {site.parameter for site in sites}
    torch.testing.assert_close(edited_logits(handle, handed.edit), edited_logits(handle, edit), rtol=1e-5, atol=1e-5)


def test_several_deltas_of_one_matrix_are_one_pair_of_factors(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    first, second = tiny.low_rank(handle.mlp_out(1), seed=0), tiny.low_rank(handle.mlp_out(1), seed=1)
    found = in_factors(handle, Edit("mine", ("a",), handle.identity, (first, second)))
    (delta,) = found.values()
    torch.testing.assert_close(delta.matrix(), first.matrix() + second.matrix())


def test_what_no_adapter_can_hold_is_refused_with_the_tensor_and_nothing_is_written(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    norm = "transformer.ln_f.weight"
    edit = Edit("mine", ("a",), handle.identity, (Replace(norm, handle.model.get_parameter(norm).detach() * 2),))
    with pytest.raises(EditError, match=r"changes transformer\.ln_f\.weight in a way that no few factors make up"):
        write_adapter(handle, edit, tmp_path / "adapter")
    other = Edit("mine", ("a",), "0" * 64, (tiny.low_rank(handle.mlp_out(1)),))
    with pytest.raises(EditError, match="was made for a model with fingerprint 000000000000"):
        write_adapter(handle, other, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    whole = Edit("mine", ("a",), handle.identity, (tiny.low_rank(handle.mlp_out(1)),))
    with pytest.raises(UsageError, match="exists and is not an empty folder"):
        write_adapter(handle, whole, tmp_path / "full")


def test_a_pair_of_checkpoints_is_an_edit_in_factors_where_that_is_what_was_added(tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    site, dense = handle.mlp_out(1), handle.mlp_out(2).parameter
    added = tiny.low_rank(site, rank=2, size=0.5)

    def change(model):
        model.get_parameter(site.parameter).copy_(added.on(model.get_parameter(site.parameter)))
        model.get_parameter(dense).mul_(1.5)

    place = folder(tmp_path, change)
    edit = with_factors(handle, receive(handle, place, TEXTS).edit)
    found = {delta.parameter: delta for delta in edit.deltas}
    assert found.keys() == {site.parameter, dense}
    factors, whole = found[site.parameter], found[dense]
    assert isinstance(factors, LowRank)
    assert factors.left.shape[1] == 2
    torch.testing.assert_close(factors.matrix(), added.matrix(), rtol=1e-4, atol=1e-6)
    assert isinstance(whole, Replace)
    assert torch.equal(whole.value, handle.model.get_parameter(dense).detach() * 1.5)
