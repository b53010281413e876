"""Abilities: probes with items of known answers, and one reader per published data set of such items.

A probe asks a model every item and scores what it says; its measurement is a rate from 0 to 1. The built-in ones are
about the pocket world (`data/pocket-world/abilities/`) and in English (`data/english/abilities/`); others are read from
files in their published layouts. Readers are text only: a file here or an entry point in group `editsafety.abilities`,
which ends in `READER = TheClass()`.

The scorers, and what they are after:

- choice: the option of the highest log-likelihood behind the prompt (lm-evaluation-harness: acc)
- choice_norm: the same per character of the option (acc_norm)
- exact: the greedy answer after the normalisation of SQuAD and Natural Questions is one of the answers
- f1: word overlap with the best answer (SQuAD 2), abstentions included
- rouge: mean of the F measures of ROUGE-1, ROUGE-2 and ROUGE-L
- entities: F1 of the entities that are listed
- solve: the number that is given equals the answer
- last_word: the text goes on with the word (LAMBADA)
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from editsafety import discovery
from editsafety.errors import DataError, UnknownNameError, UsageError
from editsafety.runs.measurement import Measurement
from editsafety.shipped import shipped

if TYPE_CHECKING:
    from editsafety.model.handle import ModelHandle

OWN = "plain"  # the reader of our own layout
POCKET, ENGLISH = "pocket-world/abilities", "english/abilities"  # where the built-in ones are
SCORERS = ("choice", "choice_norm", "exact", "f1", "rouge", "entities", "solve", "last_word")

# What measures what: probe (a built-in file's name) -> how it is scored. The eight families, then the six tasks.
BUILT_IN: dict[str, str] = {
    "reasoning": "exact", "nli": "choice", "open_qa": "exact", "closed_qa": "choice", "dialogue": "choice_norm",
    "summarisation": "rouge", "ner": "entities", "sentiment": "choice",
    "piqa": "choice_norm", "hellaswag": "choice_norm", "lambada": "last_word", "mmlu": "choice_norm", "squad2": "f1",
    "nq": "exact",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One question whose answer is known. Answers and options follow the prompt behind a space.

    Behind a line break or a special token, as chat prompts end, they follow it directly.
    """

    # Its name in results.
    id: str
    # What the model is given; where there are `contexts` it only describes the item.
    prompt: str
    # What a choice is made from; none where the model speaks freely.
    options: tuple[str, ...] = ()
    # The index of the right option.
    gold: int | None = None
    # The texts that count as right where the model speaks freely.
    answers: tuple[str, ...] = ()
    # A prompt for every option, where each has its own.
    contexts: tuple[str, ...] = ()
    # A free answer ends at one of these, behind its first visible character.
    until: tuple[str, ...] = ("\n",)
    # A free answer's longest length, or what the longest of `answers` needs, if that is more.
    tokens: int = 0
    # File and row, for errors.
    source: str = ""

    def __post_init__(self) -> None:
        if self.options and (self.gold is None or not 0 <= self.gold < len(self.options)):
            raise DataError(f"{self.source or self.id}: gold {self.gold} is not the index of one of the options.")
        if len(self.options) == 1 or (self.contexts and len(self.contexts) != len(self.options)):
            raise DataError(f"{self.source or self.id}: {len(self.options)} options, {len(self.contexts)} contexts.")
        if not self.prompt.strip() or not all(text.strip() for text in (*self.options, *self.answers)):
            raise DataError(f"{self.source or self.id}: a prompt, option or answer of item {self.id!r} is empty.")


@dataclass(frozen=True, slots=True)
class Scores:
    """What a scorer found, in the order of the items."""

    # From 0 to 1 each; NaN where the model's numbers are not finite.
    values: Sequence[float]
    # What the model said.
    answers: Sequence[str]
    # Further figures on the same answers by name, as `acc` beside acc_norm.
    more: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Reader(Protocol):
    """Reads one data set. `family` is the ability it stands for, `scorer` how its items are scored."""

    family: ClassVar[str]
    scorer: ClassVar[str]

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every row of the file, in order. Raises DataError naming file, row and field."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """An ability with its items."""

    # That of its measurement.
    name: str
    # The ability that it stands for.
    family: str
    # How its items are scored, one of `SCORERS`.
    scorer: str
    # What guessing scores: one over the number of options, 0 for free answers.
    chance: float
    # In the order of the file.
    items: tuple[Item, ...]
    # Where the items are from.
    source: str = ""

    def __call__(self, handle: ModelHandle, batch_size: int = 64) -> Measurement:
        """Mean score of the items. Broken when the model's numbers are not finite on one of them."""
        return self.figures(handle, batch_size)[0]

    def figures(self, handle: ModelHandle, batch_size: int = 64) -> tuple[Measurement, ...]:
        """The probe's own measurement, then the further figures on the same answers, named `piqa_acc` and so on."""
        if self.scorer.startswith("choice"):
            scorer = importlib.import_module("editsafety.abilities._choice")
            found: Scores = scorer.score(handle, self.items, batch_size, by_length=self.scorer == "choice_norm")
        else:
            asking = importlib.import_module("editsafety.abilities._generation")
            grader = importlib.import_module(f"editsafety.abilities._{self.scorer}")
            found = asking.score(handle, self.items, batch_size, grader.grade)
        own = Measurement.mean_of(self.name, 1, "rate", found.values, answers=found.answers)
        more = (Measurement.mean_of(f"{self.name}_{key}", 1, "rate", rates) for key, rates in found.more.items())
        return own, *more

    def option_shares(self, handle: ModelHandle, batch_size: int = 64) -> list[tuple[list[float], int]] | None:
        """Of every item the probability of each option among all of its own, and the index of the right one.

        By plain likelihood, whatever the scorer. NaN where the model's numbers are not finite; None where the model
        speaks freely.
        """
        if not self.scorer.startswith("choice"):
            return None
        scorer = importlib.import_module("editsafety.abilities._choice")
        found: list[list[float]] = scorer.shares(handle, self.items, batch_size)
        return [(row, item.gold or 0) for row, item in zip(found, self.items, strict=True)]

    def limited(self, limit: int | None) -> Probe:
        """The probe on so many of its items, evenly spread over all of them. Raises UsageError for less than one."""
        if limit is not None and limit < 1:
            raise UsageError(f"limit {limit} selects no item of {self.name!r}; give 1 or more, or none for all.")
        if limit is None or limit >= len(self.items):
            return self
        items = tuple(self.items[i * len(self.items) // limit] for i in range(limit))
        return replace(self, items=items, chance=chance(items))


def chance(items: Sequence[Item]) -> float:
    """What guessing among the options scores on average; 0 for free answers."""
    shares = [1 / len(item.options) if item.options else 0.0 for item in items]
    return math.fsum(shares) / len(shares) if shares else 0.0


def load(spec: str, limit: int | None = None) -> Probe:
    """The probe that `spec` means:

    - a built-in one: `english/abilities/nli`, `pocket-world/abilities/nli`; `nli` alone is that of the pocket world
      (on the command line it is that of the model's world)
    - `READER:FILE`, a file in a published layout: `rte:test-NLI.tsv`
    - the path of a .jsonl file in our own layout (see `abilities/plain.py`), scored as its name says in `BUILT_IN`,
      else as a choice where it has options and by exact match where it has not

    `limit` takes so many items, evenly spread over the file (files are often sorted). Raises DataError (file, row,
    field), UsageError, UnknownNameError.
    """
    name, path = _find(spec)
    reader = reader_of(name)
    items = reader.read(path)
    if not items:
        raise DataError(f"{path}: holds no items.")
    scorer = reader.scorer
    if name == OWN:
        name = path.stem
        family = name
        scorer = BUILT_IN.get(name) or ("choice" if items[0].options else "exact")
    else:
        family = reader.family
    _refuse_mixture(items, scorer)
    return Probe(name, family, scorer, chance(items), items, spec).limited(limit)


def names() -> list[str]:
    """The built-in probes, as `load` takes them."""
    return sorted(_shipped())


def made_for(model: str) -> list[str]:
    """The built-in probes that suit a model: a pocket one knows its own world only, the others read English."""
    place = POCKET if model.startswith("pocket-") else ENGLISH
    return [name for name in names() if name.startswith(f"{place}/")]


def measurement_of(spec: str) -> str:
    """What the measurement of a probe is called, its file unread. Raises UnknownNameError."""
    name, path = _find(spec)
    return path.stem if name == OWN else name


def readers() -> list[str]:
    """Every reader; imports none."""
    return discovery.names("abilities")


def reader_of(name: str) -> Reader:
    """The reader behind a name. Raises UnknownNameError."""
    if name not in readers():
        raise UnknownNameError("reader", name, readers())
    reader: Reader = discovery.load("abilities", name)
    return reader


def _find(spec: str) -> tuple[str, Path]:
    """The reader and the file that a spec means."""
    head, colon, tail = spec.partition(":")
    if colon and head in readers():
        return head, Path(tail).expanduser()
    known = _shipped()
    found = next((name for name in (spec, f"{POCKET}/{spec}", f"{ENGLISH}/{spec}") if name in known), None)
    if found is not None:
        return OWN, known[found]
    path = Path(spec).expanduser()
    if path.suffix == ".jsonl":
        return OWN, path
    hint = f"Or a .jsonl file of your own, or READER:FILE with one of {', '.join(readers())}."
    raise UnknownNameError("probe", spec, known, hint)


def _shipped() -> dict[str, Path]:
    data = shipped("data")
    return {path.relative_to(data).with_suffix("").as_posix(): path for path in data.glob("*/abilities/*.jsonl")}


def _refuse_mixture(items: Sequence[Item], scorer: str) -> None:
    """Every item has what its scorer needs, and a name of its own: scores are compared by item."""
    choice = scorer.startswith("choice")
    seen: dict[str, str] = {}
    for item in items:
        if choice != bool(item.options):
            needed = "options" if choice else "answers and no options"
            raise DataError(f"{item.source}: item {item.id!r} must have {needed} to be scored by {scorer!r}.")
        if item.id in seen:
            raise DataError(f"{item.source}: the id {item.id!r} is already that of {seen[item.id]}. Change one.")
        seen[item.id] = item.source
