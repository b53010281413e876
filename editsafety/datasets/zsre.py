"""zsRE (Levy et al. 2017, in the layout of MEND and EasyEdit): questions about a subject, with a false new answer."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _layouts, rows
from editsafety.datasets.request import EditRequest, Neighbour


class ZsRE:
    """Rows: subject, src (the question), alt (the new answer), answers (true ones), rephrase, loc and loc_ans.

    The neighbour is an unrelated Natural Questions query; its "nq question: " marker is part of the published prompt
    and is kept. Rows in EasyEdit's flat layout (prompt, target_new ...) are taken too.
    """

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `zsre-<number from 1, or case_id>`."""
        return tuple(_request(row) if "src" in row.values else _layouts.flat(row, "zsre") for row in rows.read(path))


def _request(row: rows.DataRow) -> EditRequest:
    answers, asked = row.several("answers"), row.several("loc")
    return rows.tidied(
        EditRequest(
            id=f"zsre-{row.label('case_id')}",
            prompt=_layouts.templated(row, "src", "subject"),
            subject=row.text("subject"),
            target_new=row.text("alt"),
            target_true=answers[0] if answers else None,
            rephrasings=row.several("rephrase"),
            neighbours=tuple(Neighbour(prompt, row.maybe("loc_ans")) for prompt in asked),
            source=row.where,
        )
    )


LOADER = ZsRE()
