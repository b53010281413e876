"""RippleEdits (arXiv 2307.12976): counterfactual and recent facts with six kinds of tests around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._consequences import is_text, kind_of
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import SLOT, Consequence, EditRequest, Neighbour
from editsafety.datasets.rows import EMPTY, DataRow, tidied

STAY = ("Relation_Specificity", "Forgetfulness")  # kinds of tests about what an edit must not change
FOLLOW = ("Logical_Generalization", "Subject_Aliasing", "Compositionality_I", "Compositionality_II")
KINDS = (*STAY, *FOLLOW)
READ = frozenset({"case_id", "edit", *KINDS})
VERB = re.compile(r" (?:is|are) ")
# Words of the templates that stand beside a name: they begin and end no name.
BESIDE = frozenset({"of", "in", "by", "to", "for", "from", "which", "where", "the", "is", "are", "was", "were", "with"})


class RippleEdits(PublishedRows):
    """Rows: edit {prompt: a whole sentence, subject_id, relation, target_id, original_fact}, and lists of tests.

    The sentence is divided as the set's templates make it: the target stands behind its verb, and the subject is the
    name that the sentence shares with the row's other questions about the same `subject_id`. What an edit must not
    change (Relation_Specificity, Forgetfulness) becomes neighbours; the other four kinds say what should change along
    with the fact, each with the first of the conditions under which the set counts it.
    """

    name: ClassVar[str] = "ripple_edits"
    fields: ClassVar[str] = "edit {prompt, subject_id, target_id}"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """An edit with a sentence of its own."""
        edit = values.get("edit")
        return isinstance(edit, dict) and "prompt" in edit

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by its number from 1."""
        row.leave(READ)
        edit = row.inner("edit")
        sentence = _sentence(edit)
        original = _sentence(edit.inner("original_fact")) if edit.values.get("original_fact") else ""
        asked, target = _divided(edit, sentence, original)
        subject = edit.maybe("subject") or _name_in(asked, edit, list(_queries(row)))
        start = f"{asked} ".find(f"{subject} ") if subject else -1
        if start < 0:
            edit.refuse("prompt", f"does not show which name is the subject: {sentence!r:.80}; give it as 'subject'")
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.label('case_id')}",
                    prompt=asked[:start] + SLOT + asked[start + len(subject) :],
                    subject=subject,
                    target_new=target,
                    target_true=original.removeprefix(asked).strip() if original.startswith(f"{asked} ") else None,
                    relation=edit.maybe("relation"),
                    rephrasings=_fields.rephrasings(row),
                    neighbours=tuple(one for kind in STAY for one in _stay(row, kind)),
                    portability=tuple(one for kind in FOLLOW for one in _following(row, kind)),
                    source=row.where,
                )
            ),
        )


def _sentence(fact: DataRow) -> str:
    return fact.text("prompt").strip().removesuffix(".")


def _divided(edit: DataRow, sentence: str, original: str) -> tuple[str, str]:
    """What is asked, and its answer: they meet at the last verb of what the sentence shares with the original fact."""
    same = [one == other for one, other in zip(sentence, original, strict=False)]
    shared = sentence[: same.index(False) if False in same else len(same)] if original else sentence
    verbs = list(VERB.finditer(shared))
    if not verbs:
        edit.refuse("prompt", f"has no ' is ' before its target: {sentence!r:.80}")
    end = verbs[-1].end()
    return sentence[: end - 1], sentence[end:]


def _name_in(asked: str, edit: DataRow, queries: list[DataRow]) -> str:
    """The longest run of words that every question about this subject has, and none about another."""
    subject, relation = edit.values.get("subject_id"), edit.values.get("relation")
    about = [query for query in queries if query.values.get("subject_id") == subject and not query.values.get("phrase")]
    same = [query.text("prompt") for query in about if query.values.get("relation") != relation]
    other = [query.text("prompt") for query in queries if query.values.get("subject_id") not in (None, subject)]
    words = asked.split()
    first = 3 if words[:1] == ["The"] and words[1:2] in (["name"], ["names"]) else 0
    if not same:
        return re.sub(r" (?:is|are)$", "", asked).rpartition(" of ")[2]
    runs = (words[i:j] for i in range(first, len(words)) for j in range(i + 1, len(words) + 1))
    names = [" ".join(run) for run in runs if not BESIDE & {run[0], run[-1]}]
    shared = [name for name in names if all(_holds(text, name) for text in same)]
    return max((name for name in shared if not any(_holds(text, name) for text in other)), key=len, default="")


def _holds(text: str, name: str) -> bool:
    return f" {name} " in f" {text} "


def _queries(row: DataRow) -> Iterator[DataRow]:
    """Every question of the row, those that are conditions too; what is none is passed over."""
    for kind in KINDS:
        tests = row.values.get(kind)
        for test in tests if isinstance(tests, list) else []:
            for asked in ("test_queries", "condition_queries"):
                queries = test.get(asked) if isinstance(test, dict) else None
                for query in queries if isinstance(queries, list) else []:
                    if isinstance(query, dict) and isinstance(query.get("prompt"), str):
                        yield DataRow(row.where, row.number, query, row.aside)


def _stay(row: DataRow, kind: str) -> Iterator[Neighbour]:
    """The questions of a kind with the first of their answers."""
    for test in row.rows(kind):
        for query in test.rows("test_queries"):
            answers = query.rows("answers")
            if len(answers) > 1:
                row.aside.add(f"{kind}: answers but the first")
            yield Neighbour(query.text("prompt"), answers[0].maybe("value") if answers else "")


def _following(row: DataRow, kind: str) -> Iterator[Consequence]:
    """The questions of a kind with the first of their answers; what is none is set aside, and decides nothing."""
    tests = row.values.get(kind)
    if tests in EMPTY:
        return
    for test in tests if isinstance(tests, list) else [tests]:
        asked = _answered(test, "test_queries")
        if not asked:
            row.aside.add(kind)
        conditions = _answered(test, "condition_queries")
        if len(conditions) > 1:
            row.aside.add(f"{kind}: conditions but the first")
        hop, known = conditions[0] if conditions else ("", "")
        yield from (Consequence(kind_of(kind), prompt, answer, hop, known) for prompt, answer in asked)


def _answered(test: Any, field: str) -> list[tuple[str, str]]:
    """The prompts under a field of a test that have an answer, with the first one."""
    queries = test.get(field) if isinstance(test, dict) else None
    found = []
    for query in queries if isinstance(queries, list) else []:
        prompt = query.get("prompt") if isinstance(query, dict) else None
        answers = query.get("answers") if isinstance(query, dict) else None
        first = (
            answers[0].get("value") if isinstance(answers, list) and answers and isinstance(answers[0], dict) else None
        )
        if is_text(prompt) and is_text(first):
            found.append((str(prompt), str(first)))
    return found


LOADER = RippleEdits()
