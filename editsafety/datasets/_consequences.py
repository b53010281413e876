"""What published rows say should change along with a fact, in whatever shape they say it.

- `{kind: {prompt, ground_truth}}`, or a list of such for each kind (KnowEdit, EasyEdit)
- `{"New Question", "New Answer", "Recalled Relation": "(Prague, lies on, the Vltava)"}` (EasyEdit's zsRE and
  COUNTERFACT): the relation is what has to be known beforehand

Of several answers the first is taken. What is in none of these shapes is set aside: it never decides whether a row is
read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from editsafety.datasets.request import Consequence
from editsafety.datasets.rows import EMPTY, DataRow

FOLLOWS = "portability"
# How the published sets call what we call so; another name stays what it is.
KINDS = {
    "subject_aliasing": "alias", "synonym": "alias", "subject_replace": "alias",
    "inverse_relation": "inverse", "reverse_relation": "inverse", "reversed_relation": "inverse",
    "reasoning": "one_hop", "compositionality_i": "one_hop", "logical_generalization": "logical",
    "compositionality_ii": "two_hops",
}  # fmt: skip
_TRIPLE = re.compile(r"\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*,\s*([^()]+?)\s*\)")


def consequences(row: DataRow) -> tuple[Consequence, ...]:
    """What follows from the fact of a row."""
    value = row.values.get(FOLLOWS)
    if value in EMPTY:
        return ()
    found = list(_recalled(value) if isinstance(value, Mapping) and "New Question" in value else _by_kind(value))
    if not found or None in found:
        row.aside.add(FOLLOWS)
    return tuple(one for one in found if one is not None)


def kind_of(name: str) -> str:
    """Our name of a kind."""
    plain = re.sub(r"\W+", "_", name.strip().casefold())
    return KINDS.get(plain, plain) or "other"


def is_text(value: Any) -> bool:
    """Whether a value is text that a request can hold."""
    if not isinstance(value, str) or not value.strip() or "\x00" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _by_kind(value: Any) -> Iterator[Consequence | None]:
    """Each question of each kind; None for what is none."""
    kinds = value.items() if isinstance(value, Mapping) else [("", value)]
    for kind, given in kinds:
        if given in EMPTY:
            continue
        for entry in given if isinstance(given, list) else [given]:
            yield from _questions(kind_of(str(kind)), entry)


def _questions(kind: str, entry: Any) -> Iterator[Consequence | None]:
    """One question with its answers, or a list of questions with those of each."""
    if not isinstance(entry, Mapping):
        yield None
        return
    asked, told = entry.get("prompt"), entry.get("ground_truth", entry.get("answer"))
    if asked is None and told is None:
        return
    if isinstance(asked, list) and isinstance(told, list) and len(asked) == len(told):
        pairs = list(zip(asked, told, strict=True))
    else:
        pairs = [(asked, told)]
    for prompt, answers in pairs:
        answer = _first(answers)
        yield Consequence(kind, prompt, str(answer)) if is_text(prompt) and is_text(answer) else None


def _recalled(value: Mapping[str, Any]) -> Iterator[Consequence | None]:
    """A question about the new target, and the relation that it rests on."""
    prompt, answer = value.get("New Question"), _first(value.get("New Answer"))
    relation = value.get("Recalled Relation")
    triple = _TRIPLE.search(relation) if isinstance(relation, str) else None
    hop = (f"{triple[1]} {triple[2]}", triple[3]) if triple is not None and is_text(relation) else ("", "")
    yield Consequence("one_hop", str(prompt), str(answer), *hop) if is_text(prompt) and is_text(answer) else None


def _first(value: Any) -> Any:
    """The first entry, however deep."""
    while isinstance(value, list) and value:
        value = value[0]
    return value
