"""Text that a model writes by itself, for second moments of a model that comes with no texts.

Drawn at temperature 1 from the unedited model, behind the token that its texts begin with (BOS, else EOS; without
either, behind common words): a sample of what the model takes for text, as its training texts were. Special tokens are
never drawn, so every text has its full length and its cost is known beforehand. How near the second moments come to
those of real text, and what that does to edits, is in docs/real-models.md.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from math import ceil

import torch

from editsafety.artifacts import ArtifactKey, ArtifactStore
from editsafety.editing.contexts import STARTS
from editsafety.errors import EditorError, ModelError
from editsafety.model.generation import generate
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress

RECIPE = 1  # of everything here that decides which texts come out
LENGTH = 240  # tokens of a text: long enough that its beginning hardly counts
BATCH = 64
CACHED = 2 << 30  # bytes that keys and values of a batch may take


def name(seed: int) -> str:
    """What such texts are called in artifact keys."""
    return f"text of the model itself, seed {seed}, recipe {RECIPE}"


def written(
    handle: ModelHandle, artifacts: ArtifactStore, tokens: int, *, seed: int = 0, progress: Progress | None = None
) -> list[list[int]]:
    """Ids of texts that hold at least `tokens` tokens together, each begun as the tokenizer begins a text.

    They are kept, and more are written only where those are too few. Raises EditorError where they would have to come
    from a model that carries an edit, ModelError where its numbers are not finite.
    """
    key = ArtifactKey("own-text", handle.identity, {"seed": seed, "recipe": RECIPE})
    kept = artifacts.get(key)
    rows = [] if kept is None else [row.tolist() for row in torch.split(kept["ids"], kept["lengths"].tolist())]
    wanted = ceil(tokens / _length(handle))
    if len(rows) < wanted:
        if handle.fingerprint() != handle.identity:
            raise EditorError(f"{handle.name} carries an edit; text of its own comes from the unedited model.")
        rows += write(handle, range(len(rows), wanted), seed=seed, progress=progress)
        lengths = torch.tensor([len(row) for row in rows])
        artifacts.put(key, {"ids": torch.tensor([token for row in rows for token in row]), "lengths": lengths})
    return rows[:wanted]


def write(handle: ModelHandle, numbers: range, *, seed: int = 0, progress: Progress | None = None) -> list[list[int]]:
    """The texts of these numbers; none depends on the others. Raises ModelError."""
    starts, kept = _starts(handle)
    length = _length(handle)
    prompts = [starts[number % len(starts)] for number in numbers]
    size = _batch_size(handle, length)
    batches = sum(ceil(count / size) for count in Counter(map(len, prompts)).values())
    with (progress or Progress.quiet()).task(f"text that {handle.name} writes itself", batches * length) as task:
        texts = generate(
            handle,
            prompts,
            [length] * len(prompts),
            top=None,
            generators=[_generator(seed, number) for number in numbers],
            never=_unsaid(handle),
            batch_size=size,
            ends=False,
            after_step=task.step,
        )
    return [[*(prompt if kept else ()), *_found(handle, text)] for prompt, text in zip(prompts, texts, strict=True)]


def _length(handle: ModelHandle) -> int:
    """Tokens that a text has behind its start."""
    return min(LENGTH, handle.context - max(map(len, _starts(handle)[0])))


def _starts(handle: ModelHandle) -> tuple[list[list[int]], bool]:
    """What texts are written behind, and whether it is a part of them: a BOS is where the tokenizer puts one."""
    front = handle.ids("")
    if front:
        return [front], True
    first = handle.tokenizer.bos_token_id
    first = handle.tokenizer.eos_token_id if first is None else first
    return ([[int(first)]], False) if first is not None else ([handle.ids(word) for word in STARTS], True)


def _unsaid(handle: ModelHandle) -> list[int]:
    """Special tokens, and rows of the unembedding that no token owns."""
    words = int(handle.model.config.get_text_config().vocab_size)
    return sorted({*handle.tokenizer.all_special_ids, *range(len(handle.tokenizer), words)})


def _batch_size(handle: ModelHandle, length: int) -> int:
    """Texts at a time, so that keys and values stay below `CACHED` with as many of them as the model is wide."""
    weight = handle.model.get_input_embeddings().weight
    of_a_text = 2 * handle.layers * int(weight.shape[1]) * int(weight.element_size()) * length
    return max(1, min(BATCH, CACHED // of_a_text))


def _generator(seed: int, number: int) -> torch.Generator:
    """A text's own random numbers: no text depends on how many there are."""
    digest = hashlib.sha256(f"{RECIPE}:{seed}:{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _found(handle: ModelHandle, text: Sequence[int] | None) -> Sequence[int]:
    if text is None:
        raise ModelError(
            f"{handle.name} gives logits that are not finite where it writes by itself. Use another --dtype, or give "
            "texts with --corpus."
        )
    return text
