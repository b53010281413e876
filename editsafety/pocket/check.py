"""How good a pocket model is: what it recalls, and how well it predicts text that it never saw."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editsafety.pocket.requests import recall_rows, text_rows
from editsafety.pocket.world import World

ROWS_AT_ONCE = 64


def figures(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World) -> dict[str, float]:
    """Recall per sort of prompt (share of exact greedy answers) and `perplexity` of the held-out texts."""
    by_sort: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in recall_rows(world):
        by_sort[sort_of(row)].append((str(row["prompt"]), str(row["answer"])))
    result = {sort: recall(model, tokenizer, by_sort[sort]) for sort in sorted(by_sort)}
    texts = [str(row["text"]) for row in text_rows(world)]
    return {**result, "perplexity": perplexity(model, tokenizer, texts)}


def sort_of(row: Mapping[str, object]) -> str:
    """Under which heading a recall row is counted."""
    if row["held_out"]:
        return "recall, mid-sentence, held out"
    if not row["subject_first"]:
        return "recall, mid-sentence, trained"
    return f"recall, {'one-token' if row['one_token'] else 'two-word'} subject first"


@torch.no_grad()
def recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[tuple[str, str]]) -> float:
    """Share of (prompt, answer) pairs whose every answer token is the model's first choice.

    For greedy decoding this is the same as generating: as long as all choices are right, the text so far is the same.
    """
    right = 0
    for start in range(0, len(asked), ROWS_AT_ONCE):
        rows, spans = [], []
        for prompt, answer in asked[start : start + ROWS_AT_ONCE]:
            head = tokenizer(prompt, add_special_tokens=False).input_ids
            tail = tokenizer(f" {answer}", add_special_tokens=False).input_ids
            rows.append(head + tail)
            spans.append((len(head), len(head) + len(tail)))
        ids = _pad(rows, tokenizer)
        choices = model(ids).logits.argmax(-1)
        for row, (head_end, end) in enumerate(spans):
            right += bool((choices[row, head_end - 1 : end - 1] == ids[row, head_end:end]).all())
    return right / len(asked)


@torch.no_grad()
def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Arithmetic mean over texts of exp(mean negative log-likelihood of tokens 2..n), no token put in front."""
    values = []
    for start in range(0, len(texts), ROWS_AT_ONCE):
        rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts[start : start + ROWS_AT_ONCE]]
        ids = _pad(rows, tokenizer)
        scores = model(ids).logits.float().log_softmax(-1)
        for row, tokens in enumerate(rows):
            losses = -scores[row, : len(tokens) - 1].gather(-1, ids[row, 1 : len(tokens), None])
            values.append(math.exp(losses.mean().item()))
    return sum(values) / len(values)


def _pad(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """[rows, longest], padded on the right, where a causal model does not look."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[tokenizer.pad_token_id] * (longest - len(row))] for row in rows])
