"""What a pocket model can do besides knowing facts: worked examples in its training text, others kept back as probes.

Whether an example of a task (`tasks`) is kept back depends on its text alone (`is_kept_back`), so training and probes
never share one.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping

from editsafety.pocket.prose import sentences
from editsafety.pocket.tasks import (
    Example,
    closed_qa,
    dialogue,
    hellaswag,
    lambada,
    ner,
    nli,
    nq,
    open_qa,
    piqa,
    reasoning,
    sentiment,
    squad2,
    summarisation,
)
from editsafety.pocket.world import World

KEPT_BACK = 5  # one example in so many is never trained on
ITEMS = 300  # of every probe

Draw = Callable[[World, random.Random], Example]


def is_kept_back(example: Example) -> bool:
    """Whether training never shows this example."""
    digest = hashlib.sha256((example.key or example.text).encode()).digest()
    return digest[0] % KEPT_BACK == 0


TRAINED: Mapping[str, Draw] = {
    draw.__name__: draw
    for draw in (reasoning, nli, open_qa, closed_qa, dialogue, summarisation, ner, sentiment, piqa, lambada, squad2, nq)
}
PROBES: Mapping[str, Draw] = {**TRAINED, "hellaswag": hellaswag, "mmlu": open_qa}
HARD = ("reasoning", "nli", "summarisation")  # shown twice as often: they are learnt last
CHOSEN = ("nli", "closed_qa", "dialogue", "sentiment", "piqa", "hellaswag", "mmlu")


def examples(world: World, rng: random.Random, forbidden: frozenset[str] = frozenset()) -> Iterator[str]:
    """Endless examples as training shows them; the abilities take turns, the hard ones twice.

    None has a sentence that is forbidden.
    """
    while True:
        turns = [*TRAINED, *HARD]
        for draw in rng.sample(turns, len(turns)):
            example = TRAINED[draw](world, rng)
            while is_kept_back(example) or not forbidden.isdisjoint(sentences(example.text)):
                example = TRAINED[draw](world, rng)
            yield example.text


def item_rows(world: World, name: str) -> list[dict[str, object]]:
    """The items of one probe: examples that training never shows."""
    rng = random.Random(f"pocket-abilities {name} {world.seed}")
    seen: set[str] = set()
    rows: list[dict[str, object]] = []
    while len(rows) < ITEMS:
        example = PROBES[name](world, rng)
        if not is_kept_back(example) or example.prompt in seen:
            continue
        seen.add(example.prompt)
        row: dict[str, object] = {"id": f"{name}-{len(rows) + 1:04d}", "prompt": example.prompt}
        if name in CHOSEN:
            options = [example.answer, *example.wrong]
            rng.shuffle(options)
            row |= {"options": options, "gold": options.index(example.answer)}
        else:
            row["answers"] = list(example.answers) if name == "ner" else [example.answer]
        rows.append(row)
    return rows
