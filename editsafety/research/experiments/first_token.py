"""First tokens against later ones: in a decoder, in the same decoder with random weights, and in a T5 encoder.

The paper's argument: first tokens have keys of their own in a decoder, where a first token attends to nothing but
itself; in an encoder, where every token attends to every other, they have not. Any position may have something of its
own, so that of the first is compared with that of others. A T5 with random weights can only show what its architecture
does by itself; what a *trained* encoder does, a real T5 has to say (`--encoder t5-small`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from editsafety.datasets.request import SLOT, EditRequest
from editsafety.editing import keys, subject
from editsafety.editors.rome_family import RankOneEditor
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.research import key_map
from editsafety.research.experiments import FALL, Cell, Context, Result, median, spell
from editsafety.research.experiments._encoder import TINY, Encoder, load

PREFIXES = 3  # contexts that every subject is put behind
PLACES = 8  # later positions that the first is compared with


class FirstToken:
    """Keys of the same subjects in first place and behind a prefix, and of the first and later tokens of texts.

    cosine: of the mean of first tokens' keys with that of later ones'. alike: mean cosine of two keys of a group.
    separation: distance of the two means over the root mean square distance from the own mean, of both groups; "of
    others" the same for each of the positions 1 to 8 of texts against the other later ones (median).
    """

    name: ClassVar[str] = "first-token"
    paper: ClassVar[str] = f"{FALL}, first tokens and T5 encoder"
    title: ClassVar[str] = "keys of first tokens against those of later ones"

    def __call__(self, context: Context) -> Result:
        """Two rows per model: subjects, and tokens of texts."""
        editor = _rank_one(context)
        handle, module = editor.handle, editor.sites[0].module
        requests = [request for stream in ("hard", "normal") for request in context.requests(stream)]
        requests = [request for request in requests if request.prompt.startswith(SLOT)]
        behind = editor.templates()[1 : 1 + PREFIXES]
        texts = list(context.bench.texts)
        rows: list[tuple[Cell, ...]] = []
        with context.progress.task("keys of first and later tokens", 3) as task:
            for name, one in ((handle.name, handle), (f"{handle.name}, random weights", _random(handle, context))):
                rows.append((name, "subjects", *_row(*_subjects(one, module, requests, behind))))
                rows.append((name, "texts", *_of_texts(key_map.of_texts(one, module, texts))))
                task.step(name)
            words = [request.filled for request in requests]
            prefixed = [template.replace(SLOT, text) for text in words for template in behind]
            encoder = load(context.encoder, [*words, *prefixed, *texts], context.settings.seed)
            rows.append((encoder.name, "subjects", *_row(*_of_encoder(encoder, words, prefixed))))
            rows.append((encoder.name, "texts", *_of_texts(encoder.keys(texts))))
            task.step(encoder.name)
        headings = (
            "model", "tokens", "first", "later", "norm, first / later", "cosine", "alike, first", "alike, later",
            "separation", "of others",
        )  # fmt: skip
        return Result(self.name, handle.name, headings, tuple(rows), _sentence(context, rows), PUBLISHED)


PUBLISHED = (
    "GPT-2 XL and GPT-J: keys of first tokens lie apart from all others, those of normal prompts as well as of "
    "collapsing ones, and a prefix moves them back; T5-3B encoder, block 23: first and later tokens do not differ"
)


def _sentence(context: Context, rows: Sequence[tuple[Cell, ...]]) -> str:
    def norms(row: Sequence[Cell]) -> str:
        figures = [spell(cell) if isinstance(cell, float) else "-" for cell in row]
        return f"{figures[8]} spreads apart, {figures[9]} for other positions, alike by {figures[6]}"

    sink = _sink(context.handle, context.bench.texts)
    sentence = (
        f"first tokens of texts in {rows[1][0]} are {norms(rows[1])} (later ones by {_cell(rows[1][7])}); in the same "
        f"decoder with random weights {norms(rows[3])}; in {rows[5][0]} {norms(rows[5])}. Their residual stream is up "
        f"to {spell(sink)} times as long as that of later tokens"
    )
    only = (
        ". Random weights show what an architecture does by itself, no more: what a trained encoder does, a real T5 "
        "has to say (--encoder t5-small)"
    )
    return sentence + (only if context.encoder == TINY else "")


def _cell(cell: Cell) -> str:
    return spell(cell) if isinstance(cell, float) else "-"


def _rank_one(context: Context) -> RankOneEditor:
    editor = context.ready("rome")
    assert isinstance(editor, RankOneEditor)
    return editor


def _subjects(
    handle: ModelHandle, module: str, requests: Sequence[EditRequest], behind: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Keys of the prompts' first tokens, and of their subjects behind prefixes."""
    bare = [subject.locate(handle, request).ids for request in requests]
    first = keys.at_subject(handle, module, [subject.Located(ids, _first(handle, ids)) for ids in bare]).inputs
    rows = [subject.locate(handle, request, template) for request in requests for template in behind]
    parts = [rows[start : start + keys.ROWS] for start in range(0, len(rows), keys.ROWS)]
    return first.cpu(), torch.cat([keys.at_subject(handle, module, part).inputs.cpu() for part in parts])


def _first(handle: ModelHandle, ids: Sequence[int]) -> int:
    """The first token that is no special one (a BOS)."""
    special = set(handle.tokenizer.all_special_ids)
    return next((place for place, token in enumerate(ids) if token not in special), 0)


def _random(handle: ModelHandle, context: Context) -> ModelHandle:
    """The same architecture and tokenizer with random weights."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.settings.seed)
        made = AutoModelForCausalLM.from_config(handle.model.config, dtype=torch.float32)
    return ModelHandle.of(made, handle.tokenizer, name=f"{handle.name}-random")


def _of_encoder(encoder: Encoder, words: Sequence[str], prefixed: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The first token of every prompt, bare, and where the prompt begins behind each of its prefixes."""
    lengths = [len(encoder.ids(text)) for text in words for _ in range(len(prefixed) // len(words))]
    later = [row[max(len(row) - n, 1)] for row, n in zip(encoder.keys(prefixed), lengths, strict=True)]
    return torch.stack([row[0] for row in encoder.keys(words)]), torch.stack(later)


def _of_texts(rows: Sequence[Tensor]) -> tuple[Cell, ...]:
    first, later = torch.stack([row[0] for row in rows]), torch.cat([row[1:] for row in rows])
    others = []
    for place in range(1, 1 + PLACES):
        here = torch.stack([row[place] for row in rows if len(row) > place])
        rest = torch.cat([torch.cat([row[1:place], row[place + 1 :]]) for row in rows])
        others.append(_separation(here, rest))
    return (*_row(first, later)[:-1], median(others))


def _row(first: Tensor, later: Tensor) -> tuple[Cell, ...]:
    norms = float(first.norm(dim=1).median() / later.norm(dim=1).median())
    cosine = float(cosine_similarity(first.double().mean(0), later.double().mean(0), dim=0))
    return len(first), len(later), norms, cosine, _alike(first), _alike(later), _separation(first, later), None


def _separation(one: Tensor, other: Tensor) -> float:
    means = [group.double().mean(0) for group in (one, other)]
    squares = [(group.double() - mean).square().sum(1).mean() for group, mean in zip((one, other), means, strict=True)]
    return float((means[0] - means[1]).norm() / ((squares[0] + squares[1]) / 2).sqrt())


def _alike(group: Tensor) -> float:
    """Mean cosine of two different rows."""
    units, n = normalize(group.double(), dim=1), len(group)
    return float((units.sum(0).square().sum() - n) / (n * (n - 1))) if n > 1 else 1.0


@torch.no_grad()
def _sink(handle: ModelHandle, texts: Sequence[str]) -> float:
    """Length of the residual stream at first tokens over that at later ones (medians), where it is largest."""
    blocks = [handle.block(layer) for layer in range(handle.layers)]
    rows = [ids for text in texts[:16] if len(ids := handle.ids(text, special=False)[: handle.context]) > 1]
    batch = handle.batch(rows)
    with trace.watch(handle.model, blocks) as seen:
        handle.logits(batch)
    ratios = []
    for block in blocks:
        norms = seen.outputs[block].reshape(*batch.ids.shape, -1).float().norm(dim=-1).cpu()
        later = torch.cat([row[1:length] for row, length in zip(norms, batch.lengths, strict=True)])
        ratios.append(float(norms[:, 0].median() / later.median()))
    return max(ratios)


EXPERIMENT = FirstToken()
