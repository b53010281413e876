"""First tokens against later ones: the figures by hand, and the encoder."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from editsafety.errors import ModelError
from editsafety.research.experiments import _encoder, first_token
from tests import tiny

TEXTS = ["the fox runs far away", "a dog sleeps", "the dog runs"]


def test_separation_is_the_distance_of_the_means_in_spreads():
    here = torch.tensor([[3.0, 1.0], [3.0, -1.0]])  # 3 away, squares 1 and 1
    there = torch.tensor([[0.0, 2.0], [0.0, -2.0]])  # squares 4 and 4
    assert first_token._separation(here, there) == pytest.approx(3 / math.sqrt((1 + 4) / 2))


def test_alike_is_the_mean_cosine_of_two_different_rows():
    assert first_token._alike(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])) == pytest.approx(
        (0 + math.sqrt(0.5) + math.sqrt(0.5)) / 3
    )


def test_other_positions_are_compared_the_same_way():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(12, 6, generator=generator) for _ in range(40)]
    for row in rows:
        row[0] += 20.0  # only the first position is something else
    *_, first, others = first_token._of_texts(rows)
    assert first > 5
    assert others < 1


def test_a_tiny_t5_is_the_same_for_the_same_seed_and_draws_from_nobody_else():
    state = torch.get_rng_state()
    one, two, other = (_encoder.load("tiny", TEXTS, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.keys(TEXTS)[0], two.keys(TEXTS)[0])
    assert not torch.equal(one.keys(TEXTS)[0], other.keys(TEXTS)[0])


def test_keys_of_an_encoder_are_the_inputs_of_its_last_projection():
    made = _encoder.load("tiny", TEXTS, 0)
    assert made.module == "encoder.block.3.layer.1.DenseReluDense.wo"
    seen = []
    hook = made.model.get_submodule(made.module).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        made.model(input_ids=torch.tensor([made.ids(TEXTS[1])]))
    hook.remove()
    found = made.keys(TEXTS)
    assert [len(row) for row in found] == [5, 3, 3]
    torch.testing.assert_close(found[1], seen[0][0], rtol=1e-4, atol=1e-5)  # padding changes nothing


def test_a_t5_in_a_folder_is_read(tmp_path):
    config = T5Config(vocab_size=tiny.VOCABULARY, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    made = _encoder.load(str(tmp_path), TEXTS, 0)
    assert made.module == "encoder.block.1.layer.1.DenseReluDense.wo"
    assert made.keys(TEXTS)[0].shape == (len(made.ids(TEXTS[0])), 24)


def test_what_is_no_t5_is_refused(tmp_path):
    tiny.config_folder(tmp_path, "gpt2")
    with pytest.raises(ModelError, match="is a gpt2, not a T5"):
        _encoder.load(str(tmp_path), TEXTS, 0)
    with pytest.raises(ModelError, match="cannot load the encoder"):
        _encoder.load(str(tmp_path / "nowhere"), TEXTS, 0)


def test_the_first_token_is_behind_a_bos():
    handle = SimpleNamespace(tokenizer=SimpleNamespace(all_special_ids=[0, 1]))
    assert first_token._first(handle, [0, 5, 6]) == 1
    assert first_token._first(handle, [5, 6]) == 0


def test_only_random_weights_are_told_to_prove_nothing(shared, tmp_path):
    said = first_token.EXPERIMENT(shared).sentence
    assert "a real T5 has to say (--encoder t5-small)" in said
    assert "tiny random T5" in said
