"""Two models side by side: what differs, by how much, of what rank, and which cannot be compared."""

import dataclasses
import json

import pytest
import torch

from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import ModelError
from editsafety.model.handle import ModelHandle
from editsafety.received import difference
from editsafety.received.difference import Change, differing, numerical_rank, precision, refuse_unlike, rounding_noise
from tests import tiny

SHAPES = [(64, 32), (96, 160)]


def matrices(shape, rank, size, seed=0):
    """W like a model's, and a dW of this rank with ||dW|| = size * ||W||."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(*shape, generator=generator) * 0.08
    left, right = torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)
    delta = left @ right
    return weight, delta * (size * weight.norm() / delta.norm())


@pytest.mark.parametrize("size", [1e-5, 1e-3, 0.1, 1.0, 1e4])
@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_edit_rounded_to_float32_has_the_rank_it_was_written_with(shape, rank, size):
    weight, delta = matrices(shape, rank, size)
    found = Change.of("w", weight, weight + delta)
    assert (found.rank, found.at_least) == (rank, False)
    naive = torch.linalg.matrix_rank((weight + delta).double() - weight.double())
    assert naive > rank, "rounding should fill the rank up, or this test shows nothing"


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_tenth_of_the_weight_keeps_its_rank_in_bfloat16(shape, rank, size):
    weight, delta = matrices(shape, rank, size)
    rounded = (weight + delta).bfloat16().float()
    assert Change.of("w", weight, rounded).rank == rank
    assert Change.of("w", weight.bfloat16(), (weight.bfloat16().float() + delta).bfloat16()).rank == rank


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1e-4, 1e-3, 3e-3, 1e-2, 3e-2])
def test_rounding_never_adds_to_the_rank_and_loses_what_is_below_it(size, seed, narrow):
    weight, delta = matrices((96, 160), 5, size, seed)
    found = Change.of("w", weight, (weight + delta).to(narrow).float()).rank
    assert found is not None
    assert found <= 5
    if size < torch.finfo(narrow).eps / 8:
        assert found == 0


def test_what_is_only_saved_in_a_narrower_dtype_was_not_edited():
    weight, delta = matrices((64, 32), 1, 0.1)
    same = Change.of("w", weight, weight.bfloat16().float())
    assert (same.rounded_to, same.rank) == ("bfloat16", None)
    assert same.relative == pytest.approx(2**-9, rel=0.6)
    assert Change.of("w", weight, weight.half().float()).rounded_to == "float16"
    assert Change.of("w", weight, (weight + delta).bfloat16().float()).rounded_to == ""
    half = weight.bfloat16()
    assert Change.of("w", half, half + 1).rounded_to == "", "nothing narrower than the model itself"


def test_the_precision_is_that_of_the_values_whatever_they_are_kept_in():
    weight, _ = matrices((8, 8), 1, 1)
    assert precision(weight) == torch.float32
    assert precision(weight.bfloat16().float()) == torch.bfloat16
    assert precision(weight.half().float()) == torch.float16
    assert precision(weight.bfloat16()) == torch.bfloat16
    assert rounding_noise(weight) == pytest.approx(2**-24 * float(weight.norm()))
    assert rounding_noise(weight.bfloat16().float()) == pytest.approx(2**-8 * float(weight.norm()), rel=1e-2)


def test_norms_and_counts_are_those_of_the_difference():
    weight = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    after = torch.tensor([[3.0, 2.0], [0.0, 4.0]])
    found = Change.of("w", weight, after)
    assert (found.entries, found.norm, found.relative, found.rank) == (1, 2.0, 0.4, 1)
    assert found.full_rank == 2
    vector = Change.of("b", torch.zeros(3), torch.tensor([3.0, 4.0, 0.0]))
    assert (vector.norm, vector.relative, vector.rank) == (5.0, None, None)


def test_what_is_not_finite_is_counted_and_has_no_norm():
    after = torch.tensor([[1.0, float("nan")], [float("inf"), 4.0]])
    found = Change.of("w", torch.ones(2, 2), after)
    assert (found.not_finite, found.norm, found.relative, found.rank) == (2, None, None, None)
    assert found.entries == 3
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize("rank", [1, 5, 100])
def test_the_rank_of_a_large_matrix_is_found_from_few_vectors(rank, monkeypatch):
    monkeypatch.setattr(difference, "EXACT", 8)
    weight, delta = matrices((200, 300), rank, 0.1)
    after = weight + delta
    found = numerical_rank(after.double() - weight.double(), rounding_noise(after))
    assert found == (rank, False)


def test_of_a_large_matrix_of_full_rank_only_a_bound_is_known(monkeypatch):
    monkeypatch.setattr(difference, "EXACT", 8)
    delta = torch.randn(200, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert numerical_rank(delta, 1e-6) == (difference.PROBES, True)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_tensors_that_differ_are_found_whatever_they_are(family):
    before, after = tiny.handle(family), tiny.handle(family)
    assert differing(before, after) == {}
    name = before.mlp_out(1).parameter
    after.model.get_parameter(name).data[0, 0] += 1
    after.model.get_parameter("transformer.ln_f.bias" if family == "gpt2" else "model.norm.weight").data[0] = torch.nan
    found = differing(before, after)
    assert set(found) == {name, "transformer.ln_f.bias" if family == "gpt2" else "model.norm.weight"}
    assert torch.equal(found[name], after.model.get_parameter(name))


def test_a_saved_low_rank_edit_is_recognised_in_both_storage_orders(tmp_path):
    for family in ("gpt2", "llama"):
        handle = tiny.handle(family)
        with EditSession(handle) as session:
            session.apply(Edit("x", (), handle.identity, (tiny.low_rank(handle.mlp_out(1), rank=3),)))
            handle.model.save_pretrained(tmp_path / family)
            handle.tokenizer.save_pretrained(tmp_path / family)
        after = ModelHandle.load(str(tmp_path / family))
        ((name, value),) = differing(handle, after).items()
        assert name == handle.mlp_out(1).parameter
        assert Change.of(name, handle.model.get_parameter(name).detach(), value).rank == 3


def test_models_that_were_made_alike_can_be_compared():
    refuse_unlike(tiny.handle("gpt2"), tiny.handle("gpt2", seed=1), tiny.SENTENCES)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: tiny.handle("llama"), "tiny-llama is a llama, tiny-gpt2 a gpt2"),
        (lambda: tiny.handle("gpt2", vocab_size=400), "a vocabulary of 400, tiny-gpt2 one of 384"),
        (lambda: tiny.handle("gpt2", layers=2), "lacks 'transformer.h.2"),
        (lambda: tiny.handle("gpt2", layers=4), "lacks 'transformer.h.3"),
        (lambda: tiny.handle("gpt2", square=True), r"is float32 \[32, 64\] in tiny-gpt2 and float32 \[32, 32\]"),
        (lambda: tiny.handle("gpt2", dtype="bfloat16"), r"is float32 .* and bfloat16 "),
        (lambda: tiny.handle("gpt2", tied=False), "tiny-gpt2 lacks 'lm_head.weight'"),
        (lambda: tiny.handle("gpt2", spelling="bytes_bos"), "the tokenizers of tiny-gpt2 and tiny-gpt2 differ"),
        (lambda: tiny.handle("gpt2", spelling="words"), "has the ids"),
    ],
)
def test_models_that_cannot_be_compared_are_refused_with_the_reason(other, said):
    with pytest.raises(ModelError, match=said):
        refuse_unlike(tiny.handle("gpt2"), other(), tiny.SENTENCES)


def test_a_change_is_plain_values():
    found = Change.of("w", *(lambda w, d: (w, w + d))(*matrices((64, 32), 1, 0.1)))
    assert json.loads(json.dumps(found.as_json())) == {**dataclasses.asdict(found), "shape": [64, 32]}


def test_a_tensor_that_differs_in_its_last_bit_differs():
    before, after = tiny.handle("gpt2"), tiny.handle("gpt2")
    name = before.mlp_out(1).parameter
    value = after.model.get_parameter(name).data
    value[0, 0] = torch.nextafter(value[0, 0], torch.tensor(torch.inf))
    assert set(differing(before, after)) == {name}
    assert float((value - before.model.get_parameter(name)).detach().abs().max()) < 1e-7
