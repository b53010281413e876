"""COUNTERFACT (ROME, arXiv 2202.05262): 21,919 counterfactual statements, in the original layout or in another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _requests
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow


class CounterFact(PublishedRows):
    """Rows: requested_rewrite {prompt with {}, subject, target_new {str}, target_true {str}, relation_id}, and prompts.

    Original rows have one rephrasing or more (paraphrase_prompts) and ten neighbours (neighborhood_prompts), whose own
    answer is the old target: COUNTERFACT chose them to share it.
    """

    name: ClassVar[str] = "counterfact"
    fields: ClassVar[str] = "requested_rewrite, an object with target_new {str}"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """A rewrite whose new target is an object."""
        rewrite = values.get("requested_rewrite")
        return isinstance(rewrite, dict) and isinstance(rewrite.get("target_new", {}), dict)

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by `case_id`."""
        return (_requests.either(row, f"{prefix}-{row.label('case_id')}"),)


LOADER = CounterFact()
