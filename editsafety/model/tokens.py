"""Tokens: what a tokenizer makes of a prompt, where in the text each token stands, and how an answer follows a prompt.

A text gets its special tokens once, whoever gave them: those that the tokenizer puts in front, or the ones that a chat
template has already written there. What a tokenizer puts *behind* a text (an EOS) is left out: texts are continued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Span = tuple[int, int]

_OF_CALLS = ("padding", "truncation")  # parts of a fast tokenizer that every call sets


@dataclass(frozen=True, slots=True)
class Spelled:
    """A text as tokens."""

    # Token ids, special tokens included.
    ids: tuple[int, ...]
    # Of every token, which characters of the text it stands for (first, behind the last; equal where it stands for
    # none); None where the tokenizer does not tell.
    spans: tuple[Span, ...] | None


def identity(tokenizer: Any) -> str:
    """sha256 over all that decides which tokens a text becomes: rules, words, and which tokens are special.

    How its own calls pad and cut is left out, which is as it was used last.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: dict[str, Any] = {"kind": type(tokenizer).__name__, "words": tokenizer.get_vocab()}
    else:
        rules = {name: rule for name, rule in json.loads(backend.to_str()).items() if name not in _OF_CALLS}
    body = {"rules": rules, "special": sorted(tokenizer.all_special_ids), "sample": spell(tokenizer, "A sample.")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def spell(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Token ids of a text; with `special`, behind what the tokenizer puts in front by itself, unless it is there."""
    if not special:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    whole = list(tokenizer(text, add_special_tokens=True)["input_ids"])
    known = tokenizer.all_special_ids
    if not whole or (whole[0] not in known and whole[-1] not in known):
        return whole
    bare = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    front = _front(tokenizer, whole, bare)
    if front is None:
        return whole
    there = bool(front) and bare[: len(front)] == front
    return bare if there else [*front, *bare]


def spell_out(tokenizer: Any, text: str) -> Spelled:
    """The ids of `spell`, and the characters of the text that each stands for."""
    ids = spell(tokenizer, text)
    if not tokenizer.is_fast:
        return Spelled(tuple(ids), None)
    told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    front = ids[: len(ids) - len(told["input_ids"])]
    if [*front, *told["input_ids"]] != ids:
        return Spelled(tuple(ids), None)
    spans = [(int(first), int(behind)) for first, behind in told["offset_mapping"]]
    return Spelled(tuple(ids), (*((0, 0) for _ in front), *spans))


def gap(tokenizer: Any, prompt: str) -> str:
    r"""What stands between a prompt and its answer: nothing behind white space and special tokens, else a space.

    Chat prompts end so ("<|im_start|>assistant\n"), and what they are answered with begins there.
    """
    return "" if prompt[-1:].isspace() or _special_end(tokenizer, prompt) else " "


def follow(tokenizer: Any, target: str, prompt: str = "") -> list[int]:
    """Ids of a target (white space at its edges does not count) as it stands behind a prompt, no special tokens.

    Behind a `gap`, the target is tokenised together with an anchor word and cut off, which is right for byte-level BPE
    and for SentencePiece alike (the latter would otherwise start with a lone space piece). Without one, it is cut off
    from what the prompt ends with; a tokenizer that writes a space before everything is not to write it here.
    """
    target = target.strip()
    if not prompt or gap(tokenizer, prompt):
        spaced = " " + target
        ids = _cut(tokenizer, "x", spaced)
        return spell(tokenizer, spaced, special=False) if ids is None else ids
    tries = [ids for ids in _directly(tokenizer, target, prompt) if ids]
    head = spell(tokenizer, prompt)
    written = _text(tokenizer, head)
    for ids in tries:
        whole = _text(tokenizer, [*head, *ids])
        if whole.startswith(written) and not whole[len(written) :][:1].isspace():
            return ids
    return tries[0] if tries else []


def write_before(tokenizer: Any, text: str, prompt: str) -> str:
    """The prompt behind a text; a BOS that the prompt begins with stays in first place."""
    bos = tokenizer.bos_token
    if bos and prompt.startswith(bos):
        return f"{bos}{text}{prompt[len(bos) :]}"
    return text + prompt


def _front(tokenizer: Any, whole: list[int], bare: list[int]) -> list[int] | None:
    """What the tokenizer put before `bare` to make `whole`; None where they do not fit together."""
    if not bare:  # nothing to see it by: every text has the same
        sample = [list(tokenizer("x", add_special_tokens=special)["input_ids"]) for special in (True, False)]
        return _front(tokenizer, *sample) if sample[1] else None
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    return None


def _directly(tokenizer: Any, target: str, prompt: str) -> Iterator[list[int] | None]:
    """Ways to spell a target that no space stands before, the most natural first; None for one that does not work."""
    yield _cut(tokenizer, _special_end(tokenizer, prompt) or prompt[-1], target)
    yield spell(tokenizer, target, special=False)
    yield _cut(tokenizer, "\n", target)


def _cut(tokenizer: Any, anchor: str, text: str) -> list[int] | None:
    """Ids of a text behind an anchor; None where the anchor is spelled differently before it."""
    head, joint = (spell(tokenizer, one, special=False) for one in (anchor, anchor + text))
    return joint[len(head) :] if joint[: len(head)] == head else None


def _special_end(tokenizer: Any, prompt: str) -> str:
    """The special token that a prompt ends with, as text; "" where it ends with none."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    names = {*tokenizer.all_special_tokens, *(token.content for token in added.values() if token.special)}
    return max((name for name in names if prompt.endswith(name)), key=len, default="")


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
