"""EasyEdit: what its users have, whichever way they keep it.

- a list of rows, or JSON lines: prompt, subject, target_new; as far as there are any ground_truth, rephrase_prompt (or
  rephrase), locality_prompt with locality_ground_truth, and KnowEdit's `locality`, a list of {prompt, ground_truth} for
  each kind of it
- one object of parallel lists, as the Python interface takes them: prompts, subject, target_new, ground_truth,
  rephrase_prompts, locality_inputs {name: {prompt: [...], ground_truth: [...]}}

Prompts are filled, or have one `{}`. Of several new targets or answers the first is taken, and the ground truth
"<|endoftext|>" is none: EasyEdit puts it where nothing is known. All kinds of locality become neighbours. Portability
is checked and left out: requests have no place for questions whose answers follow from an edit.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _easyedit
from editsafety.datasets.request import EditRequest


class EasyEdit:
    """Rows of EasyEdit and KnowEdit, or the parallel lists of its Python interface."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `easyedit-<case_id, or number from 1>`."""
        return tuple(_easyedit.request(row, "easyedit") for row in _easyedit.rows_of(path))


LOADER = EasyEdit()
