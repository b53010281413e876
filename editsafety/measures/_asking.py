"""What the measures that put questions to a model share: greedy answers, and when an answer says the target."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from editsafety.errors import DataError
from editsafety.measurement import Measurement
from editsafety.models import ModelHandle

HALF = "\ufffd"  # what a decoder writes for a character of which only some bytes have been generated
MORE = 3  # a UTF-8 character has at most four bytes, so at most three tokens complete it
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclass(frozen=True, slots=True)
class Question:
    """A filled prompt, how many tokens to let the model say, and the answer that it will probably give.

    `draft` only saves forward passes, it never changes an answer. `where` names the prompt in errors.
    """

    prompt: str
    tokens: int
    draft: tuple[int, ...] = ()
    where: str = ""


def expecting(handle: ModelHandle, prompt: str, target: str, where: str) -> Question:
    """The question whether `prompt` is continued by `target`: one token more shows whether its last word ends there."""
    ids = handle.target_ids(target)
    return Question(prompt, len(ids) + 1, tuple(ids), where)


def says(answer: str, target: str) -> bool:
    """Whether an answer begins with the target behind a space and the target's last word ends there.

    Exact text, case included. The boundary is needed because "farm" is not the answer when the model says "farmer";
    scripts that put no spaces between words (Chinese, Japanese, Thai ...) have none.
    """
    said, target = answer.lstrip(), target.strip()
    if said == answer or not said.startswith(target):
        return False
    behind = said[len(target) :][:1]
    return not (behind and _in_word(behind) and _in_word(target[-1])) or _spaceless(target[-1])


def ask(
    handle: ModelHandle, questions: Sequence[Question], *, batch_size: int = 64, whole_characters: bool = False
) -> list[str | None]:
    """The greedy free-running answer to each question, in order; None where the model's logits are not finite.

    `whole_characters` goes on by up to three tokens where an answer stops inside a character. Raises DataError when a
    prompt and its answer do not fit into the model's context.
    """
    prompts = [handle.ids(question.prompt) for question in questions]
    for ids, question in zip(prompts, questions, strict=True):
        needed = len(ids) + question.tokens + (MORE if whole_characters else 0)
        if needed > handle.context:
            raise DataError(
                f"{question.where or 'a prompt'}: {len(ids)} tokens and an answer need {needed}, {handle.name} takes "
                f"{handle.context}. Shorten the prompt: {question.prompt[:60]!r}..."
            )
    heads = [handle.text(ids) for ids in prompts]
    drafts = [() if _hooked(handle.model) else question.draft for question in questions]
    said: list[list[int] | None] = [[] for _ in questions]
    lengths = [question.tokens for question in questions]
    _continue(handle, prompts, said, lengths, drafts, batch_size)
    texts = [_behind(handle, *row) for row in zip(prompts, heads, said, strict=True)]
    half = [text is not None and text.endswith(HALF) for text in texts]
    if whole_characters and any(half):
        lengths = [n + MORE if open_ else n for n, open_ in zip(lengths, half, strict=True)]
        _continue(handle, prompts, said, lengths, drafts, batch_size)
        texts = [_behind(handle, *row) for row in zip(prompts, heads, said, strict=True)]
    return texts


def with_gaps(
    name: str, unit: str, items: Sequence[float | None], reason: str, *, answers: Sequence[str | None] = ()
) -> Measurement:
    """The mean of the items there are; NaN marks an item on which the model broke, `reason` says why there are none."""
    present = [item for item in items if item is not None]
    kept = tuple(answer or "" for answer in answers)
    if not present:
        return Measurement.missing(name, 1, unit, reason)
    found = Measurement.mean_of(name, 1, unit, present, answers=kept)
    return replace(found, items=tuple(x if x is not None and math.isfinite(x) else None for x in items))


def grade(answer: str | None, target: str) -> float:
    """1 when the answer says the target, 0 when it does not, NaN when the model gave none."""
    return math.nan if answer is None else float(says(answer, target))


@torch.no_grad()
def _continue(
    handle: ModelHandle,
    prompts: Sequence[Sequence[int]],
    said: list[list[int] | None],
    lengths: Sequence[int],
    drafts: Sequence[Sequence[int]],
    batch_size: int,
) -> None:
    """Lengthen every answer to its length, in place.

    A draft is appended to the prompt and read off in the same pass: as far as it agrees with the most probable tokens
    it *is* the greedy continuation, and the pass also gives the token behind it. So an edit that took is confirmed in
    one pass instead of one per token, exactly, because a causal model does not see ahead.
    """
    while True:
        waiting = [(i, row) for i, row in enumerate(said) if row is not None and len(row) < lengths[i]]
        if not waiting:
            return
        waiting.sort(key=lambda pair: (len(prompts[pair[0]]) + len(pair[1]) + len(drafts[pair[0]]), pair[0]))
        for start in range(0, len(waiting), batch_size):
            chosen = waiting[start : start + batch_size]
            guesses = [_guess(row, drafts[i], lengths[i]) for i, row in chosen]
            rows = [[*prompts[i], *row, *guess] for (i, row), guess in zip(chosen, guesses, strict=True)]
            peaks, best = handle.logits(handle.batch(rows)).max(-1)  # NaN and +inf show in the maximum
            finite, tokens = torch.isfinite(peaks).tolist(), best.tolist()
            for k, ((i, row), guess) in enumerate(zip(chosen, guesses, strict=True)):
                first = len(rows[k]) - len(guess) - 1
                if not _accept(row, guess, tokens[k][first:], finite[k][first:]):
                    said[i] = None


def _guess(row: list[int], draft: Sequence[int], length: int) -> Sequence[int]:
    """What of the draft is still to come: nothing once the answer has left it."""
    return draft[len(row) : length - 1] if list(draft[: len(row)]) == row else ()


def _accept(row: list[int], guess: Sequence[int], best: Sequence[int], finite: Sequence[bool]) -> bool:
    """Append the greedy tokens that a pass has settled; False when one of them rests on logits that are not finite."""
    for place in range(len(guess) + 1):
        if not finite[place]:
            return False
        row.append(best[place])
        if place < len(guess) and best[place] != guess[place]:
            return True
    return True


def _behind(handle: ModelHandle, prompt: Sequence[int], head: str, said: Sequence[int] | None) -> str | None:
    """The text behind the prompt. Decoded together with it: alone, SentencePiece would lose the space in between."""
    if said is None:
        return None
    whole = handle.text([*prompt, *said])
    return whole[len(head) :] if whole.startswith(head) else handle.text(said)


def _hooked(model: nn.Module) -> bool:
    """Whether anything runs beside the model. A sidecar may look at the whole input, so drafts could sway it."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _in_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _spaceless(character: str) -> bool:
    return unicodedata.name(character, "").startswith(SPACELESS)
