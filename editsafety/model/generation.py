"""Free text from a model: token by token behind prompts, with a cache of keys and values.

The cache only saves work: the same tokens come out as from running the whole text for every token (a test compares them
on every family). Prompts of one length share a batch, so that nothing is padded. Where something runs beside the model
(a sidecar) and may look at the whole input, there is no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from editsafety.errors import DataError
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import next_logits


def end_ids(handle: ModelHandle) -> frozenset[int]:
    """The tokens with which this model ends a text: those of its tokenizer, its config and its generation config."""
    settings = getattr(handle.model, "generation_config", None)
    given = [handle.tokenizer.eos_token_id, handle.model.config.eos_token_id, getattr(settings, "eos_token_id", None)]
    ends: set[int] = set()
    for ids in given:
        ends.update(ids if isinstance(ids, list | tuple) else () if ids is None else (ids,))
    return frozenset(ends)


def has_hooks(model: nn.Module) -> bool:
    """Whether anything runs beside the model: a sidecar may look at the whole input."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def generate(
    handle: ModelHandle,
    prompts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    *,
    top: int | None = 1,
    generators: Sequence[torch.Generator] | None = None,
    never: Sequence[int] = (),
    batch_size: int = 64,
    ends: bool = True,
    cache: bool = True,
    after_step: Callable[[], None] | None = None,
) -> list[list[int] | None]:
    """What the model says behind every prompt: `lengths[i]` tokens, fewer where it ends the text; None where it broke.

    `top` 1 is greedy; otherwise one of the `top` most probable tokens (None: of all of them, so at temperature 1) is
    drawn in proportion to their probabilities, by the prompt's own generator (CPU), so that no text depends on the
    others. Tokens of `never` are not said. The token that ends a text is not part of it; with `ends` False it is a
    token like any other, and all texts are of full length. In half precision the cache, like the size of a batch, may
    tip the balance between tokens that are equally probable but for rounding. `after_step` is called after every step
    of a batch.

    Raises DataError for an empty prompt, or one that does not fit into the context with its text.
    """
    for ids, length in zip(prompts, lengths, strict=True):
        if not ids or len(ids) + length > handle.context:
            raise DataError(
                f"a prompt of {len(ids)} tokens and a text of {length} behind it; {handle.name} takes 1 to "
                f"{handle.context} in all. Shorten the prompt or the text."
            )
    draw = _Draw(top, generators)
    silent = torch.tensor(list(never), dtype=torch.long, device=handle.device)
    generated: list[list[int] | None] = [[] for _ in prompts]
    stops = end_ids(handle) if ends else frozenset()
    cached = cache and not handle.engine.plain and not has_hooks(handle.model)
    for chosen in _of_one_length([len(ids) for ids in prompts], batch_size):
        texts = {i: list(prompts[i]) for i in chosen}
        steps = _stepping(handle, texts) if cached else _whole(handle, texts)
        said = _told(steps, silent, after_step or (lambda: None))
        _grow(texts, {i: len(prompts[i]) + lengths[i] for i in chosen}, said, draw, stops, generated)
        for i in chosen:
            if generated[i] is not None:
                generated[i] = texts[i][len(prompts[i]) :]
    return generated


class _Draw:
    """Picks the next token of a row."""

    def __init__(self, top: int | None, generators: Sequence[torch.Generator] | None) -> None:
        self.top = top
        self.generators = generators

    def __call__(self, row: int, logits: Tensor) -> int:
        """From logits `[vocab]` of the row."""
        if self.top == 1 or self.generators is None:
            return int(logits.argmax())
        if self.top is None:
            return _drawn(logits, self.generators[row])
        best = logits.topk(min(self.top, logits.numel()))
        shares = best.values.double().softmax(-1).cpu()
        return int(best.indices[torch.multinomial(shares, 1, generator=self.generators[row])])


def _drawn(logits: Tensor, generator: torch.Generator) -> int:
    """One of all tokens, by the inverse of their distribution: one random number, whatever the vocabulary's size."""
    below = logits.cpu().double().softmax(-1).cumsum(-1)
    place = torch.rand((), generator=generator, dtype=torch.float64) * below[-1]
    return min(int(torch.searchsorted(below, place, right=True)), len(below) - 1)


def _told(steps: Iterator[Tensor], silent: Tensor, after_step: Callable[[], None]) -> Iterator[Tensor]:
    """The steps, with what is never said made impossible."""
    for logits in steps:
        if len(silent):
            logits[:, silent] = -torch.inf
        after_step()
        yield logits


def _grow(
    texts: dict[int, list[int]],
    wanted: dict[int, int],
    steps: Iterator[Tensor],
    draw: _Draw,
    ends: frozenset[int],
    generated: list[list[int] | None],
) -> None:
    """Lengthen the texts in place until each has its length, has ended, or broke (`found` is None then)."""
    going = {i for i in texts if len(texts[i]) < wanted[i]}
    while going:
        logits = next(steps)
        for row, i in enumerate(texts):
            if i not in going:
                texts[i].append(texts[i][-1])  # keeps the rows of one length; cut off below
                continue
            if not torch.isfinite(logits[row].max()):  # NaN and +inf show in the maximum
                generated[i] = None
                going.discard(i)
            token = draw(i, logits[row]) if generated[i] is not None else 0
            if token in ends and generated[i] is not None:
                wanted[i] = len(texts[i])
                going.discard(i)
            texts[i].append(token)
            if len(texts[i]) >= wanted[i]:
                going.discard(i)
    for i in texts:
        del texts[i][wanted[i] :]


def _stepping(handle: ModelHandle, texts: dict[int, list[int]]) -> Iterator[Tensor]:
    """Logits `[rows, vocab]` of the next token, float32: the prompts once, then only what was appended since."""
    from transformers import DynamicCache

    kept = DynamicCache(config=handle.model.config)
    seen = 0
    while True:
        rows = torch.tensor(list(texts.values()), device=handle.device)
        mask = torch.ones_like(rows)
        output = handle.run(rows[:, seen:], mask, cache=kept)
        kept, seen = output.cache, rows.shape[1]
        yield torch.as_tensor(output.logits)[:, -1].float()


def _whole(handle: ModelHandle, texts: dict[int, list[int]]) -> Iterator[Tensor]:
    """The same from the whole text every time."""
    while True:
        yield next_logits(handle, list(texts.values()))


def _of_one_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of rows of equal length, at most `batch_size` together."""
    for length in sorted(set(lengths)):
        same = [i for i, other in enumerate(lengths) if other == length]
        yield from (same[start : start + batch_size] for start in range(0, len(same), batch_size))
