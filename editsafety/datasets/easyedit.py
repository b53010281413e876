"""EasyEdit: what its users have, whichever way they keep it.

- a list of rows, or JSON lines: prompt, subject, target_new; as far as there are any ground_truth, rephrase_prompt (or
  rephrase), locality_prompt with locality_ground_truth, and KnowEdit's `locality`, a list of {prompt, ground_truth} for
  each kind of it
- one object of parallel lists, as the Python interface takes them: prompts, subject, target_new, ground_truth,
  rephrase_prompts, locality_inputs {name: {prompt: [...], ground_truth: [...]}}
- its results: rows with the same fields under `requested_rewrite`, beside `pre` and `post`

Prompts are filled, or have one `{}`. Of several new targets or answers the first is taken, and the ground truth
"<|endoftext|>" is none: EasyEdit puts it where nothing is known. All kinds of locality become neighbours. Portability
(a question under `New Question`, or lists of {prompt, ground_truth} for each kind; `portability_inputs`) says what
should change along with the fact; in any other shape it is set aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _requests
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow


class EasyEdit(PublishedRows):
    """Rows of EasyEdit and KnowEdit, the parallel lists of its Python interface, or its results."""

    name: ClassVar[str] = "easyedit"
    fields: ClassVar[str] = "prompt, subject and target_new"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """A prompt with a plain new target, at the top or in a rewrite."""
        asked = values.get("requested_rewrite", values)
        plain = isinstance(asked, dict) and not isinstance(asked.get("target_new", {}), dict) and "prompt" in asked
        return plain and "target_old" not in values

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by `case_id` or its number."""
        return (_requests.either(row, f"{prefix}-{row.label('case_id')}"),)


LOADER = EasyEdit()
