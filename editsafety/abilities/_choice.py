"""Multiple choice: the option that the model finds most probable behind the prompt.

As in lm-evaluation-harness: `acc` compares the log-likelihoods of whole options, `acc_norm` divides each by the number
of characters of its option, without the space before it. Two differences: options of exactly the same likelihood
share the point (there, the first wins, so that a dead model scores what the order of the options gives it), and an
option whose text is that of the right one is right.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from editsafety.abilities import Item, Scores
from editsafety.abilities._prompts import fit_prompt
from editsafety.engine import passes
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import by_length as dealt
from editsafety.model.scoring import log_likelihoods


def score(handle: ModelHandle, items: Sequence[Item], batch_size: int = 64, *, by_length: bool = False) -> Scores:
    """Per item whether the gold option wins, by likelihood, or by likelihood per character with `acc` in `more`.

    An item is NaN when the likelihood of one of its options is not finite.
    """
    logs = likelihoods(handle, items, batch_size)
    norms = [
        [x / len(option.strip()) for x, option in zip(row, item.options, strict=True)] for row, item in _of(logs, items)
    ]
    plain, per_character = _won(logs, items), _won(norms, items)
    said = [_best(row, item) for row, item in _of(norms if by_length else logs, items)]
    if by_length:
        return Scores(per_character, said, {"acc": plain})
    return Scores(plain, said)


def likelihoods(handle: ModelHandle, items: Sequence[Item], batch_size: int = 64) -> list[list[float]]:
    """Natural log-likelihood of every option of every item; found once for all who ask of an edited model.

    The last token of an option is predicted, never read, so options of one token share a single row: a yes or no
    question costs one pass.
    """
    key = ("likelihoods of options", tuple(items), batch_size)
    return passes.keep_of_state(handle, key, lambda: _likelihoods(handle, items, batch_size))


def shares(handle: ModelHandle, items: Sequence[Item], batch_size: int = 64) -> list[list[float]]:
    """The probability of every option among those of its item: the softmax of their log-likelihoods.

    NaN where one of those is not finite.
    """
    logs = [torch.tensor(row, dtype=torch.float64) for row in likelihoods(handle, items, batch_size)]
    return [row.softmax(-1).tolist() if bool(row.isfinite().all()) else [math.nan] * len(row) for row in logs]


@torch.no_grad()
def _likelihoods(handle: ModelHandle, items: Sequence[Item], batch_size: int) -> list[list[float]]:
    wanted: dict[tuple[int, ...], list[tuple[int, int, list[int]]]] = defaultdict(list)
    found = [[0.0] * len(item.options) for item in items]
    for i, item in enumerate(items):
        behind = item.contexts or [item.prompt] * len(item.options)
        targets = [handle.target_ids(option, text) for option, text in zip(item.options, behind, strict=True)]
        room = max(map(len, targets))
        shared = None if item.contexts else fit_prompt(handle, item.prompt, room, item)
        for k, target in enumerate(targets):
            prompt = shared if shared is not None else fit_prompt(handle, item.contexts[k], room, item)
            wanted[(*prompt, *target[:-1])].append((i, k, target))
    rows = list(wanted)
    for chosen in dealt({n: len(row) for n, row in enumerate(rows)}, batch_size):
        logits = handle.logits(handle.batch([rows[n] for n in chosen]))
        for place, n in enumerate(chosen):
            for i, k, target in wanted[rows[n]]:
                found[i][k] = _summed(logits[place, len(rows[n]) - len(target) : len(rows[n])], target)
    return found


def _summed(logits: Tensor, target: list[int]) -> float:
    """Log-likelihood of a target, `logits` being those of the positions before each of its tokens.

    NaN and infinite logits make it NaN or infinite.
    """
    return float(log_likelihoods(logits, torch.tensor(target)).sum())


def _of(rows: Sequence[list[float]], items: Sequence[Item]) -> list[tuple[list[float], Item]]:
    return list(zip(rows, items, strict=True))


def _won(rows: Sequence[list[float]], items: Sequence[Item]) -> list[float]:
    return [_share(row, item) for row, item in _of(rows, items)]


def _share(row: list[float], item: Item) -> float:
    """The share of right ones among the best options: 1 or 0 where one option is the best."""
    if not all(math.isfinite(x) for x in row) or item.gold is None:
        return math.nan
    alike = list(zip(item.contexts or [""] * len(row), item.options, strict=True))
    best = [option for x, option in zip(row, alike, strict=True) if x == max(row)]
    return sum(option == alike[item.gold] for option in best) / len(best)


def _best(row: list[float], item: Item) -> str:
    return item.options[row.index(max(row))] if all(math.isfinite(x) for x in row) else ""
