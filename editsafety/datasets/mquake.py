"""MQuAKE (arXiv 2305.14795): chains of facts, of which one or more are rewritten, with questions along the chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _requests
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow


class MQuake(PublishedRows):
    """Rows: requested_rewrite, a list of rewrites as COUNTERFACT's, each with its `question`.

    Every rewrite becomes a request of its own, its question a rephrasing. The questions along the chain (questions,
    single_hops, ...) are set aside: a request has no place for what follows from several facts at once.
    """

    name: ClassVar[str] = "mquake"
    fields: ClassVar[str] = "requested_rewrite, a list"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """Several rewrites in one row."""
        several = values.get("requested_rewrite")
        return isinstance(several, list) and bool(several)

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """A request for each rewrite, named by `case_id` and its place in the list, from 0."""
        row.leave(_requests.BESIDE | {"requested_rewrite"})
        for i, asked in enumerate(row.rows("requested_rewrite")):
            yield _requests.rewrite(asked, row, f"{prefix}-{row.label('case_id')}-{i}")


LOADER = MQuake()
