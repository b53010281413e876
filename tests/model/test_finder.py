"""The parts of a block, looked for in the model: those of the row where there is one, or a reason."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import ModelError
from editsafety.model.architectures import ROWS
from editsafety.model.finder import NotFoundError, find
from editsafety.model.handle import ModelHandle
from tests import tiny

# A norm stands between what attention and MLP give and what the block adds, or a block is built unlike the others.
REFUSED = {
    **dict.fromkeys(("gemma2", "gemma3", "olmo2", "olmo3", "exaone4", "glm4"), "add something else"),
    "gemma4_text": "are not all alike",
    "mixtral": "found: (none|block_sparse_moe.experts.0.w2, )",  # in transformers 4 an expert is a module
    "mamba": "found: none",
}
BY_KIND = {row.model_type: row for row in ROWS}
USUAL = {
    "vocab_size": tiny.VOCABULARY, "hidden_size": tiny.WIDTH, "intermediate_size": tiny.INNER, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128, "bos_token_id": 0,
    "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.relatives(), *tiny.ROWLESS])
def test_what_is_found_is_the_row_and_what_does_not_add_up_is_refused(family: str) -> None:
    model = tiny.model(family)
    if family in REFUSED:
        with pytest.raises(NotFoundError, match=REFUSED[family]):
            find(model)
        return
    found, row = find(model), BY_KIND[model.config.model_type]
    assert (found.block, found.mlp_out, found.attention_out) == (row.block, row.mlp_out, row.attention_out)
    assert set(found.mlp_in) == set(row.mlp_in)
    assert set(found.attention_in) == set(row.attention_in)


@pytest.mark.parametrize("kind", ["persimmon", "bitnet", "vaultgemma"])
def test_a_family_without_a_row_is_edited_by_what_is_found(kind: str) -> None:
    assert kind not in BY_KIND
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **USUAL))
    handle = ModelHandle.of(model, tiny.tokenizer(), name=kind)
    assert handle.has_row
    site = handle.mlp_out(1)
    assert (site.d_out, site.d_in) == (tiny.WIDTH, tiny.INNER)
    batch = handle.batch([handle.ids("The capital of Dorvan")])
    with EditSession(handle) as session, torch.no_grad():
        before = handle.logits(batch)
        session.apply(Edit("test", ("a",), handle.identity, (tiny.low_rank(site, size=1.0),)))
        assert not torch.equal(handle.logits(batch), before)
    assert session.leftovers == ()
    assert handle.fingerprint() == handle.identity


def test_a_model_that_is_wired_otherwise_than_its_modules_are_called_is_refused() -> None:
    model = tiny.model("llama")
    model.model.layers[1].mlp.register_forward_hook(lambda *args: args[-1] * 2)  # a scale behind the projection
    with pytest.raises(NotFoundError, match="add something else"):
        find(model)


def test_an_unknown_family_says_why_its_parts_cannot_be_told() -> None:
    with pytest.raises(ModelError, match=r"'mamba', and its parts cannot be told from the model: .*found: none"):
        tiny.handle("mamba").mlp_out(0)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_no_memory_while_a_model_is_tried_says_nothing_of_its_parts(error: type[Exception]) -> None:
    def refuse(*_: object) -> None:
        raise error("no room for a pass")

    model = tiny.model("gpt2")
    model.transformer.h[0].register_forward_pre_hook(refuse)
    with pytest.raises(error, match="no room for a pass"):
        find(model)
