"""The two layouts in which COUNTERFACT-like sets are passed around: the original of ROME, and EasyEdit's flat one."""

from __future__ import annotations

from pathlib import Path

from editsafety.datasets.request import SLOT, EditRequest, Neighbour
from editsafety.datasets.rows import DataRow, read, tidied


def either(path: Path, name: str) -> tuple[EditRequest, ...]:
    """Requests of a file in the original or the flat layout, decided row by row; ids are `name-<case_id or number>`."""
    return tuple(original(row, name) if "requested_rewrite" in row.values else flat(row, name) for row in read(path))


def original(row: DataRow, name: str) -> EditRequest:
    """ROME's layout: requested_rewrite {prompt with {}, subject, target_new {str}, target_true {str}, relation_id}.

    The neighbours' own answer is the old target: COUNTERFACT chose them to share it.
    """
    rewrite = row.inner("requested_rewrite")
    true = rewrite.inner("target_true").text("str") if rewrite.values.get("target_true") is not None else ""
    return tidied(
        EditRequest(
            id=f"{name}-{row.label('case_id')}",
            prompt=rewrite.text("prompt"),
            subject=rewrite.text("subject"),
            target_new=rewrite.inner("target_new").text("str"),
            target_true=true or None,
            relation=rewrite.maybe("relation_id"),
            rephrasings=row.several("paraphrase_prompts"),
            neighbours=tuple(Neighbour(prompt, true) for prompt in row.several("neighborhood_prompts")),
            source=row.where,
        )
    )


def flat(row: DataRow, name: str) -> EditRequest:
    """EasyEdit's layout: prompt (filled), subject, target_new, and as far as there are any ground_truth,
    rephrase_prompt, locality_prompt, locality_ground_truth (a text or a list each), relation_id.
    """
    prompts, answers = row.several("locality_prompt"), row.several("locality_ground_truth")
    if answers and len(answers) != len(prompts):
        row.refuse("locality_ground_truth", f"has {len(answers)} texts for {len(prompts)} in 'locality_prompt'")
    truths = row.several("ground_truth")
    return tidied(
        EditRequest(
            id=f"{name}-{row.label('case_id')}",
            prompt=templated(row, "prompt", "subject"),
            subject=row.text("subject"),
            target_new=row.text("target_new"),
            target_true=truths[0] if truths else None,
            relation=row.maybe("relation_id"),
            rephrasings=row.several("rephrase_prompt"),
            neighbours=tuple(Neighbour(prompt, answers[i] if answers else "") for i, prompt in enumerate(prompts)),
            source=row.where,
        )
    )


def templated(row: DataRow, prompt_field: str, subject_field: str) -> str:
    """A filled prompt with `{}` in place of the subject.

    One occurrence only: the first that stands as a word of its own ("i" is not the first letter of "if"), else the
    first. Replacing all of them, as is often done, would ask for the subject twice. A prompt that already has its `{}`
    is taken as it is. Raises DataError when the subject does not occur, or the prompt holds other braces `{}`.
    """
    prompt, subject = row.text(prompt_field), row.text(subject_field).strip()
    if prompt.count(SLOT) == 1 and subject not in prompt:
        return prompt
    if SLOT in prompt:
        row.refuse(prompt_field, f"holds {{}} and the subject at once: {prompt!r:.80}")
    if subject not in prompt:
        row.refuse(subject_field, f"does not occur in {prompt_field!r}: {subject!r:.60} in {prompt!r:.80}")
    start = _whole_word(prompt, subject)
    return prompt[:start] + SLOT + prompt[start + len(subject) :]


def _whole_word(prompt: str, subject: str) -> int:
    """Where the subject first stands between characters that are no letters or digits, else where it first stands."""
    start = first = prompt.index(subject)
    while start >= 0:
        around = prompt[max(start - 1, 0) : start] + prompt[start + len(subject) :][:1]
        if not any(character.isalnum() or character == "_" for character in around):
            return start
        start = prompt.find(subject, start + 1)
    return first
