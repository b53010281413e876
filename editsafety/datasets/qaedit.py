"""QAEdit ("The Mirage of Model Editing", arXiv 2502.11177): questions that models get wrong, with the right answer."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _layouts, rows
from editsafety.datasets.request import EditRequest, Neighbour


class QAEdit:
    """Rows: id, source (NQ, TQA, SQA), prompt, subject, target, rephrase, locality (list of loc and loc_ans).

    The target is true and there is no old one, so the pairwise score has nothing to compare.
    """

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `qaedit-<source>-<id>`: the ids alone occur several times."""
        return tuple(_request(row) for row in rows.read(path))


def _request(row: rows.DataRow) -> EditRequest:
    return rows.tidied(
        EditRequest(
            id=f"qaedit-{row.text('source')}-{row.label('id')}",
            prompt=_layouts.templated(row, "prompt", "subject"),
            subject=row.text("subject"),
            target_new=row.text("target"),
            rephrasings=row.several("rephrase"),
            neighbours=tuple(Neighbour(n.text("loc"), n.maybe("loc_ans")) for n in row.rows("locality")),
            source=row.where,
        )
    )


LOADER = QAEdit()
