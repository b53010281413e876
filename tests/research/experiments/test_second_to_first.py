"""The second position in place of the first."""

import pytest
import torch

from editsafety.errors import UsageError
from editsafety.research.experiments.second_to_first import EXPERIMENT, refuse, second_to_first
from tests import tiny

ROW = [5, 9, 40, 41, 7]


def logits(handle, **more):
    with torch.no_grad():
        return handle.model(input_ids=torch.tensor([ROW]), **more).logits


@pytest.mark.parametrize(
    ("family", "table", "offset"), [("gpt2", "transformer.wpe", 0), ("gpt_neo", "transformer.wpe", 0)]
)
def test_it_is_what_a_changed_table_of_positions_gives(family, table, offset):
    handle = tiny.handle(family)
    with second_to_first(handle.model):
        found = logits(handle)
    before = logits(handle)
    with torch.no_grad():
        weight = handle.model.get_submodule(table).weight
        weight[offset] = weight[offset + 1]
    torch.testing.assert_close(found, logits(handle))
    assert not torch.allclose(found, before)


@pytest.mark.parametrize("family", ["llama", "gptj", "gpt_neox", "qwen2", "phi"])
def test_rotary_models_are_given_the_position_ids(family):
    handle = tiny.handle(family)
    with second_to_first(handle.model):
        found = logits(handle)
    torch.testing.assert_close(found, logits(handle, position_ids=torch.tensor([[1, 1, 2, 3, 4]])))
    assert not torch.allclose(found, logits(handle))


def test_a_batch_with_padding_and_the_cached_half_of_a_row_are_the_same():
    from editsafety.editing.suffix import Suffix

    handle = tiny.handle("gpt2")
    rows = [ROW, ROW[:3]]
    with second_to_first(handle.model), torch.no_grad():
        whole = handle.logits(handle.batch(rows))
        rest = Suffix(handle, rows, [2, 1]).logits()
    torch.testing.assert_close(rest[0], whole[0, 2:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rest[1, :2], whole[1, 1:3], rtol=1e-4, atol=1e-4)


def test_no_hook_is_left_behind_even_after_an_error():
    handle = tiny.handle("gpt2")
    with pytest.raises(KeyError), second_to_first(handle.model):
        raise KeyError
    assert not handle.model.base_model._forward_pre_hooks


def test_a_model_without_position_ids_is_refused():
    with pytest.raises(UsageError, match=r"tiny-bloom \(bloom\) takes no position ids"):
        refuse(tiny.handle("bloom"))


def test_the_row_of_originals_is_that_of_the_records(shared):
    found = EXPERIMENT(shared)
    ppl = [record.after["me_ppl"].value for record in shared.records("rome", "hard")]
    assert found.rows[0] == (
        "original",
        2,
        shared.bench.base["me_ppl"].value,
        min(ppl),
        pytest.approx(sum(ppl) / 2),
        max(ppl),
    )
    with second_to_first(shared.handle.model):
        moved = shared.bench.measure("model")["me_ppl"].value
    assert found.rows[1][:3] == ("Second2First", 2, moved)
