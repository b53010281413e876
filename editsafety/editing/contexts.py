"""Context templates: "Some text. {}", sampled from the unedited model, so that a key does not hang on one position.

A list begins with the bare `{}`. It depends on the model's weights, the settings and the seed and on nothing else, and
is kept in the artifact store, so that every process and any order of edits reads the same one. (The published code
samples unseeded, once per process, and keeps the list in a module's global for whatever model comes next.)

Sampling is that of the published `generate_fast`: softmax, the five most likely, renormalised, one drawn. Four
differences: texts begin behind BOS or EOS, as documents do (it is not written); every row sees its whole text (their
mask of width one gives degenerate text under transformers 5); special tokens are never drawn (theirs end up in the
template as text); braces become spaces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editsafety.artifacts import ArtifactKey, ArtifactStore
from editsafety.datasets.request import SLOT
from editsafety.errors import EditorError, ModelError
from editsafety.model import scoring
from editsafety.model.handle import ModelHandle

STARTS = ("The", "Therefore", "Because", "I", "You")  # memit/memit_main.py at 80426fd; "" begins with BOS or EOS
LENGTHS = ((5, 10), (10, 10))  # [length in tokens, how many], rome/hparams at 0874014
MOST_LIKELY = 5

Lengths = Sequence[tuple[int, int]]


def sample_once(
    handle: ModelHandle,
    artifacts: ArtifactStore,
    *,
    lengths: Lengths = LENGTHS,
    starts: Sequence[str] = STARTS,
    seed: int = 0,
) -> tuple[str, ...]:
    """The bare `{}` and the sampled templates, from the store; sampled and kept when they are not there yet.

    `lengths` are pairs (tokens including the start, number of templates); the number is dealt evenly to `starts`.
    Raises EditorError when they would have to be sampled from a model that carries an edit.
    """
    settings = {"lengths": [list(pair) for pair in lengths], "starts": list(starts), "seed": seed}
    key = ArtifactKey("contexts", handle.identity, settings)
    stored = artifacts.get(key)
    if stored is None:
        if handle.fingerprint() != handle.identity:
            raise EditorError(
                f"the context templates for {handle.name} are not in the artifact store and cannot be sampled "
                "now: the model carries an edit, and they come from the unedited one. Prepare the editor first."
            )
        texts = sample(handle, lengths=lengths, starts=starts, generator=torch.Generator().manual_seed(seed))
        artifacts.put(key, {"texts": _pack(texts)})
        return texts
    return _unpack(stored, handle)


def prefixes(
    handle: ModelHandle,
    artifacts: ArtifactStore,
    *,
    lengths: Lengths = LENGTHS,
    starts: Sequence[str] = STARTS,
    seed: int = 0,
) -> tuple[str, ...]:
    """The same templates as texts to put before a prompt, the bare one left out: "Some text. ", with its space."""
    templates = sample_once(handle, artifacts, lengths=lengths, starts=starts, seed=seed)
    return tuple(template.removesuffix(SLOT) for template in templates[1:])


def group_by_length(templates: Sequence[str], lengths: Lengths) -> tuple[tuple[str, ...], ...]:
    """The bare template alone, then those of each length: the groups over which MEMIT averages keys."""
    groups, start = [tuple(templates[:1])], 1
    for _, count in lengths:
        groups.append(tuple(templates[start : start + count]))
        start += count
    return tuple(group for group in groups if group)


def sample(
    handle: ModelHandle, *, lengths: Lengths = LENGTHS, starts: Sequence[str] = STARTS, generator: torch.Generator
) -> tuple[str, ...]:
    """The bare `{}`, then for every length its templates. Raises ModelError when the tokenizer has no start token."""
    rows: list[list[int]] = []
    wanted: list[int] = []
    for length, count in lengths:
        for i in range(count):
            rows.append(_start(handle, starts[i % len(starts)]))
            wanted.append(length)
    lead = _lead(handle)
    special = torch.tensor(sorted(set(handle.tokenizer.all_special_ids)), dtype=torch.long)
    while True:
        growing = [i for i, row in enumerate(rows) if len(row) < wanted[i]]
        if not growing:
            break
        scores = scoring.next_logits(handle, [[*lead[: rows[i] != lead], *rows[i]] for i in growing]).cpu()
        scores[:, len(handle.tokenizer) :] = -torch.inf  # rows of the unembedding that no token owns
        scores[:, special] = -torch.inf
        likely, tokens = torch.softmax(scores, -1).topk(MOST_LIKELY)
        drawn = torch.multinomial(likely / likely.sum(-1, keepdim=True), 1, generator=generator)
        for i, token in zip(growing, tokens.gather(1, drawn).flatten().tolist(), strict=True):
            rows[i].append(int(token))
    return (SLOT, *(_template(handle.text(row)) for row in rows))


def _start(handle: ModelHandle, word: str) -> list[int]:
    if word:
        return handle.ids(word)
    first = handle.tokenizer.bos_token_id
    first = handle.tokenizer.eos_token_id if first is None else first
    if first is None:
        raise ModelError(
            f"the tokenizer of {handle.name} has neither BOS nor EOS to start texts with: name start words."
        )
    return [int(first)]


def _lead(handle: ModelHandle) -> list[int]:
    """The token that a text begins behind where the tokenizer puts none: models have learnt beginnings behind it.

    Without it the start word is the very first token, of which some models hardly know which it was.
    """
    first = handle.tokenizer.bos_token_id
    first = handle.tokenizer.eos_token_id if first is None else first
    return [] if first is None or handle.ids("") else [int(first)]


def _template(text: str) -> str:
    """One line, no braces, no halves of characters: safe to split at `{}`."""
    for character in "{}\N{REPLACEMENT CHARACTER}\x00":
        text = text.replace(character, " ")
    return f"{' '.join(text.split())}. {SLOT}"


def _pack(texts: Sequence[str]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(list(texts)).encode()), dtype=torch.uint8)


def _unpack(stored: Mapping[str, Tensor], handle: ModelHandle) -> tuple[str, ...]:
    try:
        texts = json.loads(bytes(stored["texts"].tolist()))
    except (LookupError, RecursionError, TypeError, ValueError):
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.count(SLOT) == 1 for text in texts):
        raise EditorError(
            f"the stored context templates for {handle.name} are no list of texts with one {SLOT} each. "
            "Delete contexts-*.safetensors from the artifact folder; they are sampled again."
        )
    return tuple(texts)
