"""Free text: with a cache of keys and values the same tokens as without, whatever the family."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from editsafety.errors import DataError
from editsafety.model.generation import end_ids, generate, has_hooks
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import continuations
from tests import tiny

PROMPTS = (
    "Ashurn works as a",
    "The mother tongue of Mirel is",
    "Toren",
    "The capital of Dorvan is Kelmar. The capital of",
    "Toren",
)
LENGTHS = (24, 30, 40, 24, 7)


def seeded(count: int = len(PROMPTS)) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


@pytest.mark.parametrize("family", tiny.by_family())
def test_the_cache_changes_no_token(family: str) -> None:
    handle = tiny.handle(family)  # sliding windows are 16 tokens: the texts are longer
    ids = [handle.ids(prompt) for prompt in PROMPTS]
    greedy = generate(handle, ids, LENGTHS, ends=False)
    assert greedy == continuations(handle, ids, LENGTHS)
    drawn = generate(handle, ids, LENGTHS, top=5, generators=seeded(), ends=False)
    assert drawn == generate(handle, ids, LENGTHS, top=5, generators=seeded(), ends=False, cache=False, batch_size=1)
    assert drawn != greedy


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_bfloat16_writes_texts_of_the_asked_length(family: str) -> None:
    handle = tiny.handle(family, dtype="bfloat16")
    said = generate(handle, [handle.ids(prompt) for prompt in PROMPTS], LENGTHS, ends=False)
    assert [len(row or ()) for row in said] == list(LENGTHS)


def test_a_text_ends_where_the_model_ends_it(handle: ModelHandle) -> None:
    ids = [handle.ids(prompt) for prompt in PROMPTS]
    endless = generate(handle, ids, LENGTHS, ends=False)
    token = Counter(token for row in endless for token in row or ()).most_common(1)[0][0]
    handle.model.generation_config.eos_token_id = [token]
    for cache in (True, False):
        said = generate(handle, ids, LENGTHS, cache=cache)
        assert said == [row[: row.index(token)] if row and token in row else row for row in endless]


def test_the_ends_of_a_text_come_from_tokenizer_and_configs(handle: ModelHandle) -> None:
    handle.model.generation_config.eos_token_id = [5, 6]
    handle.model.config.eos_token_id = 7
    assert end_ids(handle) == {5, 6, 7, handle.tokenizer.eos_token_id}


def test_what_is_drawn_is_among_the_most_probable(handle: ModelHandle) -> None:
    ids = handle.ids(PROMPTS[0])
    (said,) = generate(handle, [ids], [20], top=3, generators=seeded(1), ends=False)
    assert said is not None
    for at, token in enumerate(said):
        with torch.no_grad():
            logits = handle.logits(handle.batch([[*ids, *said[:at]]]))[0, -1]
        assert token in logits.topk(3).indices.tolist()


def test_drawn_from_all_tokens_each_comes_as_often_as_it_is_probable(handle: ModelHandle) -> None:
    count, prompt = 4000, handle.ids("Ashurn works")
    drawn = generate(handle, [prompt] * count, [1] * count, top=None, generators=seeded(count), ends=False)
    counts = Counter(token for text in drawn if text is not None for token in text)
    shares = handle.logits(handle.batch([prompt]))[0, -1].double().softmax(-1).tolist()
    squares = sum((counts[token] - count * share) ** 2 / (count * share) for token, share in enumerate(shares))
    assert abs(squares - (len(shares) - 1)) < 4 * (2 * len(shares)) ** 0.5  # chi squared: its mean, and four deviations


def test_what_is_never_to_be_said_is_not_said_and_the_rest_as_often_as_before(handle: ModelHandle) -> None:
    ids = handle.ids("Ashurn works")
    likely = handle.logits(handle.batch([ids]))[0, -1].topk(3).indices.tolist()
    assert generate(handle, [ids], [1], ends=False) == [[likely[0]]]
    assert generate(handle, [ids], [1], ends=False, never=likely[:2]) == [[likely[2]]]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_drawn_text_is_the_same_in_any_batch_and_every_step_is_told(handle: ModelHandle, batch_size: int) -> None:
    ids, steps = [handle.ids("Toren lives")] * 3, []
    drawn = generate(
        handle, ids, [20] * 3, top=None, generators=seeded(3), batch_size=batch_size, ends=False,
        after_step=lambda: steps.append(1),
    )  # fmt: skip
    alone = [generate(handle, ids[:1], [20], top=None, generators=[one], ends=False)[0] for one in seeded(3)]
    assert drawn == alone
    assert len(steps) == 20 * -(-3 // batch_size)


def test_a_model_beside_which_something_runs_gets_the_whole_text(handle: ModelHandle) -> None:
    widths: list[int] = []
    hook = handle.model.register_forward_hook(lambda module, args, output: widths.append(output.logits.shape[1]))
    assert has_hooks(handle.model)
    ids = handle.ids(PROMPTS[0])
    generate(handle, [ids], [5], ends=False)
    hook.remove()
    assert widths == [len(ids) + n for n in range(5)]
    assert not has_hooks(handle.model)


@pytest.mark.parametrize("cache", [True, False])
def test_a_model_that_breaks_on_the_way_gives_no_text(handle: ModelHandle, cache: bool) -> None:
    ids = [handle.ids(prompt) for prompt in PROMPTS]
    whole = generate(handle, ids, LENGTHS, ends=False)
    assert whole[2] is not None
    dead = whole[2][3]  # a position that only the third prompt's text and perhaps others reach
    with torch.no_grad():
        handle.model.get_input_embeddings().weight[dead] = torch.nan  # tied: its own logit is NaN for every text
    assert generate(handle, ids, LENGTHS, ends=False, cache=cache) == [None] * len(ids)


@pytest.mark.parametrize("prompt", [[], [3] * 250])
def test_a_prompt_that_does_not_fit_with_its_text_is_refused(handle: ModelHandle, prompt: list[int]) -> None:
    with pytest.raises(DataError, match=rf"a prompt of {len(prompt)} tokens and a text of 7 behind it; tiny-gpt2"):
        generate(handle, [prompt], [7])


def test_nothing_is_asked_for_no_tokens(handle: ModelHandle) -> None:
    assert generate(handle, [handle.ids("Toren")], [0]) == [[]]
    assert generate(handle, [], []) == []
