"""Candidates: tokens that may be triggers, told from an edit's weights and from how rare they are.

An edit that fires on something has to recognise it: dW k is large where the projection receives the key k of the
trigger, and small elsewhere. So every token of the vocabulary is run up to the edited projections, behind a full stop,
and the tokens are ranked by the length of dW k. Of a rank-one edit `left right^T` that is |right . k|: it names its own
trigger. A row of the embedding that was written is a candidate by the length of what was added to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Delta, Edit, LowRank
from editsafety.errors import ModelError
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site

MOST_SITES = 8  # of an edit that changes more projections, those that it changes most
ROWS = 256  # tokens that are run at once
LEAD = "."  # in front of each: what stands first in a text has keys of its own (see "The Fall of ROME")


def chosen(
    handle: ModelHandle,
    edit: Edit,
    requests: Sequence[EditRequest],
    behind: Tensor,
    *,
    by_weights: int,
    rare: int,
) -> list[int]:
    """Tokens that may be triggers of an edit: so many told by its weights, and so many that are rare, each once.

    `behind` are the unedited model's log-probabilities `[prompts, vocab]` behind neutral prompts. The tokens of the
    edited subjects are left out.
    """
    own = tokens_of(handle, requests)
    tokens = [token for token in ordinary_tokens(handle) if token not in own]
    return list(dict.fromkeys([*told_by_weights(handle, edit, tokens, by_weights), *rarest(behind, tokens, rare)]))


def ordinary_tokens(handle: ModelHandle) -> list[int]:
    """The ids that stand for text: all that the tokenizer and the model know, but for special ones."""
    words = handle.model.get_input_embeddings().weight.shape[0]
    special = set(handle.tokenizer.all_special_ids)
    return [token for token in range(min(words, len(handle.tokenizer))) if token not in special]


def usual_tokens(handle: ModelHandle, texts: Sequence[str], count: int) -> list[int]:
    """Some of the ordinary tokens that texts hold, drawn with a fixed seed."""
    known = sorted({token for text in texts for token in handle.ids(text)}.intersection(ordinary_tokens(handle)))
    drawn = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:count]
    return [known[place] for place in drawn.tolist()]


def tokens_of(handle: ModelHandle, requests: Sequence[EditRequest]) -> frozenset[int]:
    """The tokens of the edited subjects, and others that spell the same pieces of text but for spaces around them.

    An edit fires on its own subject: that is what it is for.
    """
    subjects = [request.subject for request in requests]
    spelled = [handle.ids(text, special=False) for one in subjects for text in (one, f" {one}", f"\n{one}")]
    pieces = {handle.text([token]).strip() for row in spelled for token in row} - {""}
    every = ordinary_tokens(handle) if pieces else []
    return frozenset(token for token in every if handle.text([token]).strip() in pieces)


def rarest(log_probabilities: Tensor, tokens: Sequence[int], count: int) -> list[int]:
    """Those of the tokens that have the lowest mean log-probability over the rows `[prompts, vocab]`."""
    mean = log_probabilities.double().mean(0)[list(tokens)]
    return [tokens[place] for place in _order(mean)[:count].tolist()]


def told_by_weights(handle: ModelHandle, edit: Edit, tokens: Sequence[int], count: int) -> list[int]:
    """Those of the tokens on which the edit acts most, the first of all places that it changes taken in turn.

    Expects the unedited weights in the handle. Nothing for an edit without changes of projections or embeddings.
    """
    scores = [*_by_keys(handle, edit, tokens), *_by_rows(handle, edit, tokens)]
    ranked = [[tokens[place] for place in _order(-score).tolist()] for score in scores]
    turns = (token for turn in zip(*ranked, strict=True) for token in turn)
    return list(dict.fromkeys(turns))[:count]


def _by_keys(handle: ModelHandle, edit: Edit, tokens: Sequence[int]) -> list[Tensor]:
    """||dW k|| of every token, for each of the projections that are changed most."""
    acting = {site: _acting(handle, site, deltas) for site, deltas in _by_site(handle, edit).items()}
    sizes = {site: float(torch.linalg.vector_norm(matrix)) for site, matrix in acting.items()}
    changed = [site for site, size in sizes.items() if 0.0 < size < math.inf]
    chosen = sorted(changed, key=lambda site: -sizes[site])[:MOST_SITES]
    found: dict[Site, list[Tensor]] = {site: [] for site in chosen}
    lead = handle.ids(LEAD)
    for start in range(0, len(tokens) if chosen else 0, ROWS):
        rows = [[*lead, token] for token in tokens[start : start + ROWS]]
        for site, keys in _keys(handle, chosen, rows).items():
            found[site].append(torch.linalg.vector_norm(keys @ acting[site].T, dim=-1).cpu())
    return [torch.cat(parts) for parts in found.values()]


@torch.no_grad()
def _keys(handle: ModelHandle, sites: Sequence[Site], rows: Sequence[Sequence[int]]) -> dict[Site, Tensor]:
    """What the projections receive at the last token of rows of equal length, float32 `[rows, d_in]`."""
    batch = handle.batch(rows)
    count, width = batch.ids.shape
    with trace.watch(handle.model, [site.module for site in sites], stop=True) as seen:
        handle.run(batch.ids, batch.mask)
    return {site: seen.inputs[site.module].reshape(count, width, -1)[:, -1].float() for site in sites}


def _by_rows(handle: ModelHandle, edit: Edit, tokens: Sequence[int]) -> list[Tensor]:
    """How much was added to the row of every token, for each matrix that has a row per token (embedding, head)."""
    parameters = dict(handle.model.named_parameters(remove_duplicate=False))
    words = handle.model.get_input_embeddings().weight.shape[0]
    found = []
    for name in edit.parameters:
        before = parameters[name].detach() if name in parameters else None
        if before is None or before.ndim != 2 or before.shape[0] != words:
            continue
        after = before
        for delta in edit.deltas:
            after = delta.on(after) if delta.parameter == name else after
        found.append(torch.linalg.vector_norm((after.float() - before.float())[list(tokens)], dim=-1).cpu())
    return found


def _by_site(handle: ModelHandle, edit: Edit) -> Mapping[Site, list[Delta]]:
    """The changes of plain projections that receive hidden states: not of embeddings, heads and norms."""
    head = handle.model.get_output_embeddings()
    found: dict[Site, list[Delta]] = {}
    for delta in edit.deltas:
        module, _, kind = delta.parameter.rpartition(".")
        try:
            site = handle.site(module)
        except ModelError:
            continue
        if kind == "weight" and handle.model.get_submodule(module) is not head:
            found.setdefault(site, []).append(delta)
    return found


def _acting(handle: ModelHandle, site: Site, deltas: Iterable[Delta]) -> Tensor:
    """A float32 matrix `[m, d_in]` that makes of every key something as long as dW does: dW itself, or a thin one."""
    given = list(deltas)
    low = [delta for delta in given if isinstance(delta, LowRank)]
    weight = site.stored(handle.weight(site))
    if len(low) == len(given):
        left, right = (torch.cat(parts, at) for parts, at in (([d.left for d in low], 1), ([d.right for d in low], 0)))
        left, right = left.detach().float().to(weight.device), right.detach().float().to(weight.device)
        return torch.linalg.qr(left).R @ right if bool(torch.isfinite(left).all()) else left.sum() * right
    after = weight
    for delta in given:
        after = delta.on(after)
    return site.canonical(after.float() - weight.float())


def _order(scores: Tensor) -> Tensor:
    """Places from the lowest score up, equal ones in their order; what is no number comes last."""
    return torch.sort(torch.nan_to_num(scores, nan=math.inf), stable=True).indices
