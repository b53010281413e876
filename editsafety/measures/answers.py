"""What the measures that put questions to a model share: greedy answers, and when an answer says the target."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from editsafety.errors import DataError
from editsafety.model.generation import end_ids, has_hooks
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

HALF = "\ufffd"  # what a decoder writes for a character of which only some bytes have been generated
MORE = 3  # a UTF-8 character has at most four bytes, so at most three tokens complete it
STOPS = (".", "\n")  # where WILD ends an answer (arXiv 2502.11177), beside the end-of-text token
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclass(frozen=True, slots=True)
class Question:
    """A filled prompt to be continued by the model."""

    # The text, its subject filled in.
    prompt: str
    # How many tokens to let the model say.
    tokens: int
    # Ids of the answer that it will probably give. They only save forward passes, and never change an answer.
    draft: tuple[int, ...] = ()
    # Names the prompt in errors.
    where: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said; None where the logits are not finite."""

    # As many tokens as were asked for: what `ask` gives.
    begun: str | None
    # Up to where the model stopped by itself.
    whole: str | None
    # Whether it did. Else it was cut off, and `whole` is all that it said.
    stopped: bool


def expecting(handle: ModelHandle, prompt: str, target: str, where: str) -> Question:
    """The question whether `prompt` is continued by `target`: one token more shows whether its last word ends there."""
    ids = handle.target_ids(target, prompt)
    return Question(prompt, len(ids) + 1, tuple(ids), where)


def says(answer: str, target: str, gap: str = " ") -> bool:
    """Whether an answer begins with the target behind a `gap` (white space, or "") and its last word ends there.

    Exact text, case included. The boundary is needed because "farm" is not the answer when the model says "farmer";
    scripts that put no spaces between words (Chinese, Japanese, Thai ...) have none.
    """
    beginning, target = answer.lstrip(), target.strip()
    if (gap and beginning == answer) or not beginning.startswith(target):
        return False
    behind = beginning[len(target) :][:1]
    return not (behind and _in_word(behind) and _in_word(target[-1])) or _spaceless(target[-1])


def until_stop(text: str, target: str = "") -> str | None:
    """What an answer says before its first period or line break; None when it has neither.

    A target that the answer begins with is read past whole: "St. Louis" does not end at "St".
    """
    space = len(text) - len(text.lstrip(" "))
    target = target.strip()
    start = space + len(target) if text[space:].startswith(target) else 0
    ends = [at for stop in STOPS if (at := text.find(stop, start)) >= 0]
    return text[: min(ends)] if ends else None


def ask(
    handle: ModelHandle, questions: Sequence[Question], *, batch_size: int = 64, whole_characters: bool = False
) -> list[str | None]:
    """The greedy free-running answer to each question, in order; None where the model's logits are not finite.

    `whole_characters` goes on by up to three tokens where an answer stops inside a character. Raises DataError when a
    prompt and its answer do not fit into the model's context.
    """
    _, _, _, texts = _ask_all(handle, questions, batch_size, whole_characters)
    return texts


def hear_out(
    handle: ModelHandle,
    questions: Sequence[Question],
    targets: Sequence[str],
    *,
    most: int,
    batch_size: int = 64,
    until: Callable[[str, str], str | None] = until_stop,
    whole_characters: bool = True,
) -> list[Answer]:
    """The answers of `ask`, and how they go on until the model stops by itself.

    It stops with an end-of-text token or where `until`, given text and target, says so. It is cut off `most` tokens
    behind those that the question asks for, or where the context ends. An answer that has stopped costs nothing more;
    one that follows a longer draft is read on to its end at once.
    """
    prompts, heads, said, begun = _ask_all(handle, questions, batch_size, whole_characters)
    ends = end_ids(handle)
    rows = [None if text is None or row is None else list(row) for row, text in zip(said, begun, strict=True)]
    room = [handle.context - len(ids) for ids in prompts]
    longest = [min(question.tokens + most, free) for question, free in zip(questions, room, strict=True)]
    drafts = _drafts(handle, questions)
    whole: list[str | None] = [None] * len(prompts)
    stopped = [False] * len(prompts)
    lengths = [len(row or ()) for row in rows]
    while True:
        for i, row in enumerate(rows):
            if row is None or stopped[i]:
                continue
            end = next((at for at, token in enumerate(row) if token in ends), None)
            text = _behind(handle, prompts[i], heads[i], row[:end]) or ""
            cut = until(text, targets[i])
            whole[i], stopped[i] = (text if cut is None else cut), cut is not None or end is not None
            on = max(len(row), len(drafts[i]) if list(drafts[i][: len(row)]) == row else 0) + 1
            lengths[i] = len(row) if stopped[i] else min(on, longest[i])
        if all(row is None or len(row) >= length for row, length in zip(rows, lengths, strict=True)):
            break
        _continue(handle, prompts, rows, lengths, drafts, batch_size)
    heard = zip(begun, rows, whole, stopped, strict=True)
    return [Answer(first, None if row is None else text, end) for first, row, text, end in heard]


def _ask_all(
    handle: ModelHandle, questions: Sequence[Question], batch_size: int, whole_characters: bool
) -> tuple[list[list[int]], list[str], list[list[int] | None], list[str | None]]:
    """Ids of every prompt, their text, ids and text of what was said."""
    prompts = [handle.ids(question.prompt) for question in questions]
    for ids, question in zip(prompts, questions, strict=True):
        needed = len(ids) + question.tokens + (MORE if whole_characters else 0)
        if needed > handle.context:
            raise DataError(
                f"{question.where or 'a prompt'}: {len(ids)} tokens and an answer need {needed}, {handle.name} takes "
                f"{handle.context}. Shorten the prompt: {question.prompt[:60]!r}..."
            )
    heads = [handle.text(ids) for ids in prompts]
    drafts = _drafts(handle, questions)
    replies: list[list[int] | None] = [[] for _ in questions]
    lengths = [question.tokens for question in questions]
    _continue(handle, prompts, replies, lengths, drafts, batch_size)
    texts = [_behind(handle, *row) for row in zip(prompts, heads, replies, strict=True)]
    half = [text is not None and text.endswith(HALF) for text in texts]
    if whole_characters and any(half):
        lengths = [n + MORE if open_ else n for n, open_ in zip(lengths, half, strict=True)]
        _continue(handle, prompts, replies, lengths, drafts, batch_size)
        texts = [_behind(handle, *row) for row in zip(prompts, heads, replies, strict=True)]
    return prompts, heads, replies, texts


def with_gaps(
    name: str,
    unit: str,
    items: Sequence[float | None],
    reason: str,
    *,
    answers: Sequence[str | None] = (),
    version: int = 1,
) -> Measurement:
    """The mean of the items there are; NaN marks an item on which the model broke, `reason` says why there are none."""
    present = [item for item in items if item is not None]
    texts = tuple(answer or "" for answer in answers)
    if not present:
        return Measurement.missing(name, version, unit, reason)
    mean = Measurement.mean_of(name, version, unit, present, answers=texts)
    return replace(mean, items=tuple(x if x is not None and math.isfinite(x) else None for x in items))


def grade(answer: str | None, target: str, gap: str = " ") -> float:
    """1 when the answer says the target, 0 when it does not, NaN when the model gave none."""
    return math.nan if answer is None else float(says(answer, target, gap))


@torch.no_grad()
def _continue(
    handle: ModelHandle,
    prompts: Sequence[Sequence[int]],
    replies: list[list[int] | None],
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
        waiting = [(i, row) for i, row in enumerate(replies) if row is not None and len(row) < lengths[i]]
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
                    replies[i] = None


def _drafts(handle: ModelHandle, questions: Sequence[Question]) -> list[tuple[int, ...]]:
    """The drafts that may be used: a sidecar may look at the whole input, so a draft could sway it."""
    beside = has_hooks(handle.model)
    return [() if beside else question.draft for question in questions]


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


def _behind(handle: ModelHandle, prompt: Sequence[int], head: str, reply: Sequence[int] | None) -> str | None:
    """The text behind the prompt. Decoded together with it: alone, SentencePiece would lose the space in between."""
    if reply is None:
        return None
    whole = handle.text([*prompt, *reply])
    return whole[len(head) :] if whole.startswith(head) else handle.text(reply)


def _in_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _spaceless(character: str) -> bool:
    return unicodedata.name(character, "").startswith(SPACELESS)
