"""SQuAD 2 (arXiv 1806.03822): questions on a passage, some of which it does not answer; F1 with the best answer.

The layout is the official one: `{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers":
[{"text"}], "is_impossible"}]}]}]}`. What cannot be answered is right when the model says "unanswerable"; unlike in the
official script, saying nothing is not (a dead model says nothing).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import DataRow, one_line
from editsafety.datasets.rows import whole
from editsafety.errors import DataError

TOKENS = 20


class Squad2:
    """One item per question; SQuAD 1.1 is read as well, where every question has an answer."""

    family: ClassVar[str] = "squad2"
    scorer: ClassVar[str] = "f1"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every question."""
        top = whole(path)
        if top is None or "data" not in top.values:
            raise DataError(f'{path}: is not the official layout, one object with a list "data" of articles.')
        return tuple(
            _item(question, passage.text("context"))
            for article in top.rows("data")
            for passage in article.rows("paragraphs")
            for question in passage.rows("qas")
        )


def _item(row: DataRow, context: str) -> Item:
    answers = tuple(dict.fromkeys(one_line(answer.text("text")) for answer in row.rows("answers")))
    impossible = row.values.get("is_impossible", False)
    if not isinstance(impossible, bool) or impossible == bool(answers):
        row.refuse("answers", f"has {len(answers)} texts where 'is_impossible' is {impossible!r}")
    prompt = (
        f"Passage: {one_line(context)}\nQuestion: {row.text('question').strip()}\n"
        'Answer in a few words of the passage, or "unanswerable".\nAnswer:'
    )
    return Item(f"squad2-{row.label('id')}", prompt, answers=answers, tokens=TOKENS, source=row.where)


READER = Squad2()
