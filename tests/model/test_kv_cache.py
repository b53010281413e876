"""The cache of keys and values is found under the name of every release of transformers."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from editsafety.model import kv_cache
from tests import tiny


class Old(nn.Module):
    def forward(self, input_ids: Any, past_key_values: Any = None, use_cache: bool = False) -> None: ...


class New(nn.Module):
    def forward(self, input_ids: Any, cache: Any = None, use_cache: bool = False) -> None: ...


class Foreign(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    ("module", "name"), [(Old(), "past_key_values"), (New(), "cache"), (Foreign(), "past_key_values")]
)
def test_the_name_of_the_argument_is_read_off_the_model(module: nn.Module, name: str) -> None:
    assert kv_cache.keyword(module) == name


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_found_in_a_call_under_either_name(name: str) -> None:
    kept = object()
    assert kv_cache.given({"input_ids": 1, name: kept}) is kept
    assert kv_cache.given({name: None}) is None


def test_a_call_with_both_names_has_the_cache_of_the_one_that_is_not_empty() -> None:
    kept = object()
    assert kv_cache.given({"cache": None, "past_key_values": kept}) is kept


@pytest.mark.parametrize("output", [{"past_key_values": 7, "logits": 1}, {"cache": 7}])
def test_a_cache_is_found_in_an_output_under_either_name(output: dict[str, int]) -> None:
    assert kv_cache.returned(output) == 7


@pytest.mark.parametrize("output", [{"logits": 1}, (1, 2), CausalLMOutputWithPast(logits=torch.zeros(1))])
def test_an_output_without_one_has_none(output: Any) -> None:
    assert kv_cache.returned(output) is None


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_text_run_in_two_parts_behind_a_cache_gets_the_logits_of_the_whole_and_no_warning(family: str) -> None:
    handle = tiny.handle(family)
    ids = torch.tensor([handle.ids("Ada Lovelace wrote the first program")])
    mask, head = torch.ones_like(ids), ids.shape[1] // 2
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = handle.run(ids, mask)
        first = handle.run(ids[:, :head], mask[:, :head], keep=True)
        second = handle.run(ids[:, head:], mask, cache=first.cache)
    assert whole.cache is None
    assert first.cache is not None
    assert second.cache is not None
    both = torch.cat([first.logits, second.logits], 1)
    torch.testing.assert_close(both, whole.logits, rtol=1e-4, atol=1e-4)


def test_the_body_alone_gives_a_cache_and_no_logits() -> None:
    handle = tiny.handle("gpt2")
    ids = torch.tensor([[1, 2, 3]])
    ran = handle.run(ids, torch.ones_like(ids), keep=True, body=True)
    assert ran.logits is None
    assert ran.cache.get_seq_length() == 3
