"""What published rows have in common: a filled prompt, rephrasings, and neighbours under several names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from editsafety.datasets._seen import seen_alike
from editsafety.datasets.request import SLOT, Neighbour
from editsafety.datasets.rows import EMPTY, DataRow, is_whole

REPHRASINGS = ("rephrase_prompt", "rephrase", "rephrase_prompts", "paraphrase_prompts")
NEIGHBOURS = ("locality_prompt", "locality", "loc", "neighborhood_prompts")
TRUTHS = ("ground_truth", "target_true")
ANSWERS = ("locality_ground_truth", "locality_answer", "loc_ans")
SHARED = frozenset({*REPHRASINGS, *NEIGHBOURS, *ANSWERS, "relation_id"})
NOTHING_KNOWN = "<|endoftext|>"  # EasyEdit puts it where no true answer is known


def rephrasings(row: DataRow) -> tuple[str, ...]:
    """Other prompts for the same fact, under whatever name; blank ones are none."""
    return tuple(text for name in REPHRASINGS for text in row.several(name) if text.strip())


def neighbours(row: DataRow, answer: str = "") -> tuple[Neighbour, ...]:
    """What must stay as it is, under whatever name. `answer` is that of COUNTERFACT's neighbourhood prompts."""
    flat = [*_pairs(row, "locality_prompt", ("locality_ground_truth", "locality_answer")), *_with_one_answer(row)]
    shared = [Neighbour(prompt, answer) for prompt in row.several("neighborhood_prompts")]
    return (*flat, *shared, *_questions(row, "locality"))


def first(row: DataRow, field: str, *, beside: DataRow | None = None) -> str:
    """A text or a whole number, the first of a list of them, however deep, or what an object says under `str`.

    "" for nothing. That there are others is noted.
    """
    value = row.values.get(field)
    if isinstance(value, Mapping) and "str" in value:
        return first(row.inner(field), "str", beside=beside)
    others = False
    while isinstance(value, list):
        others = others or len(value) > 1
        value = value[0] if value else None
    if others:
        (beside or row).aside.add(f"{field} but the first")
    if isinstance(value, Mapping):
        row.refuse(field, "is an object, expected a text or a list of texts")
    if value is None or is_whole(value):
        return "" if value is None else str(value)
    return row.checked(field, value)


def truth(row: DataRow) -> str | None:
    """The true answer, where one is known."""
    told = (first(row, name).strip() for name in TRUTHS)
    return next((text for text in told if text and text != NOTHING_KNOWN), None)


def needed(row: DataRow, field: str) -> str:
    """The first text of a field that must hold one."""
    value = row.values.get(field)
    if isinstance(value, Mapping):
        return needed(row.inner(field), "str")
    text = first(row, field)
    if isinstance(value, list) and not text.strip():
        row.refuse(field, "holds no text")
    return text if text.strip() else row.text(field)


def templated(row: DataRow, prompt_field: str, subject_field: str) -> tuple[str, str]:
    """A filled prompt with `{}` in place of the subject, and the subject as it stands there.

    One occurrence only: the first that stands as a word of its own ("i" is not the first letter of "if"), else the
    first, else one that only differs in what does not show, or in capitals. Replacing all of them, as is often done,
    would ask for the subject twice. A prompt that already has its `{}` is taken as it is. Raises DataError when the
    subject does not occur, or the prompt holds other braces `{}`.
    """
    prompt, subject = row.text(prompt_field), row.word(subject_field).strip()
    if prompt.count(SLOT) == 1 and subject not in prompt:
        return prompt, subject
    if prompt.count(SLOT) > 1:
        row.refuse(
            prompt_field, f"must hold exactly one {{}} for the subject, found {prompt.count(SLOT)}: {prompt!r:.80}"
        )
    if SLOT in prompt:
        row.refuse(prompt_field, f"holds {{}} and the subject at once: {prompt!r:.80}")
    places = [found.span() for found in re.finditer(re.escape(subject), prompt)]
    places = places or list(seen_alike(prompt, subject))
    if not places:
        row.refuse(subject_field, f"does not occur in {prompt_field!r}: {subject!r:.60} in {prompt!r:.80}")
    start, end = next((span for span in places if _is_word(prompt, *span)), places[0])
    return prompt[:start] + SLOT + prompt[end:], prompt[start:end]


def _is_word(prompt: str, start: int, end: int) -> bool:
    around = prompt[max(start - 1, 0) : start] + prompt[end : end + 1]
    return not any(character.isalnum() or character == "_" for character in around)


def _pairs(row: DataRow, asked: str, told: Collection[str]) -> list[Neighbour]:
    """Prompts with as many answers, or none."""
    prompts = row.several(asked)
    name = next((name for name in told if row.values.get(name)), "")
    answers = row.several(name) if name else ()
    if answers and len(answers) != len(prompts):
        row.refuse(name, f"has {len(answers)} texts for {len(prompts)} in {asked!r}")
    return [Neighbour(prompt, answers[i] if answers else "") for i, prompt in enumerate(prompts)]


def _with_one_answer(row: DataRow) -> list[Neighbour]:
    """ZsRE's loc and loc_ans: one answer, whatever it is asked by."""
    return [Neighbour(prompt, first(row, "loc_ans")) for prompt in row.several("loc")]


def _questions(row: DataRow, field: str) -> Iterator[Neighbour]:
    """The questions of a list, or of every kind under a field, with their (first) answers."""
    kinds = row.values.get(field)
    if kinds is None:
        return
    if isinstance(kinds, list):
        kinds = {"": kinds}
    if not isinstance(kinds, dict):
        row.refuse(field, f"is {type(kinds).__name__}, expected objects with a prompt and its answer")
    for kind, given in kinds.items():
        if given in EMPTY:
            continue
        for i, entry in enumerate(given if isinstance(given, list) else [given]):
            if not isinstance(entry, dict):
                under = f" under {kind!r}" if kind else ""
                row.refuse(field, f"holds {entry!r:.60}{under}, expected {{prompt, ground_truth}}")
            if not kind and not entry.keys() & {"prompt", "loc", "loc_ans"}:
                row.aside.add(f"{field} without a prompt")
                continue
            yield from _asked(row.object_in(field, f"{field}.{kind}[{i}]" if kind else f"{field}[{i}]", entry))


def _asked(pair: DataRow) -> Iterator[Neighbour]:
    """One question with its answers, or a list of questions with those of each."""
    asked_by = "loc" if pair.values.keys() & {"loc", "loc_ans"} else "prompt"
    told_by = next((name for name in ("ground_truth", "answer", "loc_ans") if name in pair.values), "ground_truth")
    asked = pair.values.get(asked_by)
    if not isinstance(asked, list):
        yield Neighbour(pair.text(asked_by), first(pair, told_by))
        return
    told = pair.values.get(told_by)
    answers = [None] * len(asked) if told is None else told
    if not isinstance(answers, list) or len(answers) != len(asked):
        pair.refuse(told_by, f"must hold one answer for each of the {len(asked)} in {asked_by!r}")
    for prompt, answer in zip(pair.several(asked_by), answers, strict=True):
        yield Neighbour(prompt, first(DataRow(pair.where, pair.number, {told_by: answer}, pair.aside), told_by))
