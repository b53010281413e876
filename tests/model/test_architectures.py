"""Every family, from its config: where the weights are, which way round they are, and that an edit there is undone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from editsafety.edits.edit import Edit, LowRank, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import ModelError
from editsafety.model.architectures import ROWS, Architecture, Part
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout
from tests import tiny

DTYPES = ("float32", "bfloat16")
TIED = ("gpt2", "gpt_neo", "llama", "qwen2", "qwen3", "gemma2", "gemma3", "opt", "bloom", "falcon")
# Bloom's inner width is always four times its outer width.
SHAPES = [
    pytest.param(family, square, id=f"{family}-{'square' if square else 'oblong'}")
    for family in tiny.FAMILIES
    for square in (False, True)
    if (family, square) != ("bloom", True)
]


@pytest.fixture(params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def logits(handle: ModelHandle) -> torch.Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([handle.ids("The capital of Dorvan is Kelmar")]))


def gemma3_with_images() -> ModelHandle:
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    text = tiny.config("gemma3").to_dict()
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma3", text_config=text, vision_config=vision))
    return ModelHandle.of(model, tiny.tokenizer(), name="gemma3-with-images")


def test_every_family_of_the_design_has_one_row() -> None:
    kinds = [row.model_type for row in ROWS]
    assert len(kinds) == len(set(kinds))
    known = {tiny.MODEL_TYPES.get(family, family) for family in (*tiny.FAMILIES, *tiny.RELATIVES)}
    assert known | {"gemma3"} == set(kinds)  # that one with its images has a test of its own


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_down_projection_is_a_projection_of_the_expected_class_and_shape(family: str, dtype: str) -> None:
    handle = tiny.handle(family, dtype=dtype)
    for layer in range(handle.layers):
        site = handle.mlp_out(layer)
        module = handle.model.get_submodule(site.module)
        assert isinstance(module, Conv1D if family == "gpt2" else nn.Linear)
        assert site.layout is (Layout.IN_OUT if family == "gpt2" else Layout.OUT_IN)
        assert (site.d_out, site.d_in) == (tiny.WIDTH, 4 * tiny.WIDTH if family == "bloom" else tiny.INNER)
        assert tuple(handle.weight(site).shape) == (site.d_out, site.d_in)
        assert handle.model.get_parameter(site.parameter).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("part", Part)
def test_every_part_of_every_layer_is_a_projection(family: str, part: Part) -> None:
    handle = tiny.handle(family)
    for layer in range(handle.layers):
        sites = handle.sites(part, layer)
        assert sites
        for site in sites:
            assert site.module.startswith(handle.block(layer))


def test_a_text_goes_through_the_blocks_in_their_order_each_once(family: str) -> None:
    handle = tiny.handle(family)
    blocks = [handle.block(layer) for layer in range(handle.layers)]
    seen: list[str] = []
    for name in blocks:
        handle.model.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    logits(handle)
    assert seen == blocks  # the row names the modules that are used, not others that exist too


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize(("family", "square"), SHAPES)
def test_a_change_made_through_the_site_moves_the_output_by_exactly_dw_x(family: str, part: Part, square: bool) -> None:
    """Expected: y' - y = dW x, by hand in float64. With the wrong layout a square weight gives dW^T x instead."""
    handle = tiny.handle(family, square=square)
    for site in handle.sites(part, 1):
        module = handle.model.get_submodule(site.module).double()
        x = torch.randn(5, site.d_in, dtype=torch.float64)
        change = torch.randn(site.d_out, site.d_in, dtype=torch.float64)
        with torch.no_grad():
            before = module(x)
            module.weight.add_(site.stored(change))
            after = module(x)
        torch.testing.assert_close(after - before, x @ change.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "square"), SHAPES)
def test_a_low_rank_edit_changes_the_logits_and_is_undone_bit_for_bit(family: str, dtype: str, square: bool) -> None:
    handle = tiny.handle(family, dtype=dtype, square=square)
    before = logits(handle)
    edit = Edit("test", ("a",), handle.identity, (tiny.low_rank(handle.mlp_out(1), rank=2),))
    session = EditSession(handle)
    with session:
        session.apply(edit)
        assert not torch.equal(logits(handle), before)
        assert session.changed() == edit.parameters
    assert session.leftovers == ()
    assert handle.fingerprint() == handle.identity
    assert torch.equal(logits(handle), before)


def test_the_value_that_a_rank_one_edit_writes_arrives_at_the_output_of_the_projection(family: str) -> None:
    """Expected, by hand: with dW = (v - W k) k^T / k.k the projection of k is v (without its bias)."""
    handle = tiny.handle(family, square=family != "bloom")
    site = handle.mlp_out(2)
    module = handle.model.get_submodule(site.module)
    key, value = torch.randn(site.d_in), torch.randn(site.d_out)
    weight = handle.weight(site).clone()
    delta = LowRank(site, (value - weight @ key).unsqueeze(1), (key / key.dot(key)).unsqueeze(0))
    with EditSession(handle) as session, torch.no_grad():
        session.apply(Edit("test", ("a",), handle.identity, (delta,)))
        bias = module(torch.zeros(1, site.d_in))
        torch.testing.assert_close(module(key.unsqueeze(0)) - bias, value.unsqueeze(0), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", TIED)
def test_replacing_a_tied_embedding_changes_the_head_too_and_both_come_back(family: str) -> None:
    handle = tiny.handle(family, tied=True)
    embed, head = handle.model.get_input_embeddings().weight, handle.model.get_output_embeddings().weight
    assert embed is head
    names = dict(handle.model.named_parameters(remove_duplicate=False))
    aliases = [name for name, parameter in names.items() if parameter is embed]
    value = torch.randn(embed.shape)
    for name in aliases:
        session = EditSession(handle)
        with session:
            session.apply(Edit("test", ("a",), handle.identity, (Replace(name, value),)))
            assert torch.equal(handle.model.get_output_embeddings().weight, value)
            assert torch.equal(handle.model.get_input_embeddings().weight, value)
            assert session.changed() == session.declared()
        assert session.leftovers == ()
        assert handle.fingerprint() == handle.identity
        assert handle.model.get_input_embeddings().weight is handle.model.get_output_embeddings().weight


def test_generating_and_scoring_inside_a_session_leave_nothing_behind(family: str) -> None:
    handle = tiny.handle(family)
    session = EditSession(handle)
    with session, torch.no_grad():
        prompt = handle.batch([handle.ids("Mirel plays the violin and")])
        handle.model.generate(input_ids=prompt.ids, attention_mask=prompt.mask, max_new_tokens=4, do_sample=False)
        logits(handle)
    assert session.leftovers == ()


def test_gemma3_with_its_image_part_is_edited_in_its_language_model() -> None:
    handle = gemma3_with_images()
    before = logits(handle)
    site = handle.mlp_out(2)
    assert site.module == "model.language_model.layers.2.mlp.down_proj"
    for part in Part:
        assert handle.sites(part, 0)
    session = EditSession(handle)
    with session:
        session.apply(Edit("test", ("a",), handle.identity, (tiny.low_rank(site),)))
        assert not torch.equal(logits(handle), before)
    assert session.leftovers == ()
    assert handle.fingerprint() == handle.identity


def test_an_unknown_family_is_refused_with_the_known_ones_and_what_to_add() -> None:
    with pytest.raises(ModelError, match=r"no architecture row for model_type 'mamba'\. Known: .*bloom, .*Add one row"):
        Architecture.of(AutoConfig.for_model("mamba"))


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_a_mixture_of_experts_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(ModelError, match=rf"{kind} is a mixture of experts .* Use a dense model"):
        Architecture.of(AutoConfig.for_model(kind))


@pytest.mark.parametrize("family", tiny.ROWLESS)
def test_a_model_without_a_row_is_run_and_edited_by_name_and_only_its_parts_are_refused(family: str) -> None:
    handle = tiny.handle(family)
    assert not handle.has_row
    before = logits(handle)
    name = next(name for name, one in handle.model.named_parameters() if ".1." in name and one.ndim == 2)
    value = handle.model.get_parameter(name).detach() * 1.5
    with EditSession(handle) as session:
        session.apply(Edit("test", ("a",), handle.identity, (Replace(name, value),)))
        assert not torch.equal(logits(handle), before)
    assert session.leftovers == ()
    assert torch.equal(logits(handle), before)
    with pytest.raises(ModelError, match=r"(mixture of experts|no architecture row).*--editor path\.py:function"):
        handle.mlp_out(0)


def test_a_quantised_checkpoint_is_refused_with_what_to_load_instead() -> None:
    config = tiny.config("llama")
    config.quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    with pytest.raises(ModelError, match=r"llama checkpoint is quantised.*Load the unquantised checkpoint"):
        Architecture.of(config)


def test_a_quantised_multimodal_checkpoint_is_refused_though_its_text_config_does_not_say_so() -> None:
    config = gemma3_with_images().model.config
    config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(ModelError, match="quantised"):
        Architecture.of(config)


def test_a_layer_that_is_not_there_is_refused_with_the_range() -> None:
    handle = tiny.handle("gpt2")
    with pytest.raises(ModelError, match="layers 0 to 2; layer 3 was asked for"):
        handle.mlp_out(3)
    with pytest.raises(ModelError, match="layer -1"):
        handle.mlp_out(-1)
